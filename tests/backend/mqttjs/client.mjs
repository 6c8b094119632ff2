// One MQTT.js client of 127.0.0.1. Standard input: {"port", "subscribe": topic or null, "publish": [[topic, qos, base64], ...]}.
// Publishes everything, waits for its callbacks, then for a message on the topic; prints that message, base64, or "null".
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const told = JSON.parse(readFileSync(0, "utf8"));
const client = await mqtt.connectAsync({ host: "127.0.0.1", port: told.port, clientId: "mqttjs", reconnectPeriod: 0 });
const heard = new Promise((resolve) => client.on("message", (topic, payload) => resolve(payload.toString("base64"))));
await Promise.all(
  told.publish.map(([topic, qos, payload]) => client.publishAsync(topic, Buffer.from(payload, "base64"), { qos })),
);
if (told.subscribe) await client.subscribeAsync(told.subscribe, { qos: 1 });
console.log(JSON.stringify(told.subscribe ? await heard : null));
await client.endAsync();
