// Runs a script on the 32-bit WebAssembly build of MicroPython.
// Arguments: folder of node_modules, script, then folder and mount point in turn.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, script, ...mounts] = process.argv.slice(2);
const require = createRequire(path.join(modules, "package.json"));
const entry = require.resolve("@micropython/micropython-webassembly-pyscript/micropython.mjs");
const { loadMicroPython } = await import(pathToFileURL(entry));
const mp = await loadMicroPython({ heapsize: 64 * 1024 * 1024, pystack: 16384, stdout: (line) => console.log(line) });

function copy(from, to) {
  mp.FS.mkdir(to);
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory() && entry.name !== "__pycache__") copy(path.join(from, entry.name), `${to}/${entry.name}`);
    else if (entry.name.endsWith(".py")) mp.FS.writeFile(`${to}/${entry.name}`, fs.readFileSync(path.join(from, entry.name)));
  }
}
for (let i = 0; i < mounts.length; i += 2) copy(mounts[i], mounts[i + 1]);
mp.runPython("import sys; sys.path.insert(0, '/')");
mp.runPython(fs.readFileSync(script, "utf8"));
