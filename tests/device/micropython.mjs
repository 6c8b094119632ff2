// Runs a script on the 32-bit WebAssembly build of MicroPython, which collects garbage only where the script has a line "# stage".
// Arguments: folder of the package triax, script, tape, file for the output.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [device, script, tape, output, modules] = process.argv.slice(2);
const require = createRequire(path.join(modules, "package.json"));
const entry = require.resolve("@micropython/micropython-webassembly-pyscript/micropython.mjs");
const { loadMicroPython } = await import(pathToFileURL(entry));
const mp = await loadMicroPython({ heapsize: 48 * 1024 * 1024, pystack: 16384, stdout: (line) => console.log(line) });

function copy(from, to) {
  mp.FS.mkdir(to);
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory() && entry.name !== "__pycache__") copy(path.join(from, entry.name), `${to}/${entry.name}`);
    else if (/\.m?py$/.test(entry.name)) mp.FS.writeFile(`${to}/${entry.name}`, fs.readFileSync(path.join(from, entry.name)));
  }
}
copy(device, "/triax");
mp.FS.writeFile("/tape.bin", fs.readFileSync(tape));
mp.runPython("import sys; sys.path.insert(0, '/')");
for (const stage of fs.readFileSync(script, "utf8").split("\n# stage\n")) {
  mp.runPython(stage);
  mp.runPython("import gc; gc.collect()");
}
fs.writeFileSync(output, mp.FS.readFile("/out.bin"));
