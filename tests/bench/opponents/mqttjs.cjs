// Load with MQTT.js: told = {"port", "clients", "hz", "qos", "bytes"} as the only argument; runs until SIGTERM.
// Node finds the library by NODE_PATH.
const mqtt = require("mqtt");

const told = JSON.parse(process.argv[2]);
const payload = Buffer.alloc(told.bytes, 1);
const period = 1000 / told.hz;

function start(number) {
  const topic = `triax/v1/${number.toString(16).padStart(16, "0")}/frame`;
  const client = mqtt.connect({ host: "127.0.0.1", port: told.port, clientId: `mqttjs-${number}`, reconnectPeriod: 0 });
  client.on("error", (error) => console.error(error.message));
  client.once("connect", () => {
    setTimeout(() => setInterval(() => client.publish(topic, payload, { qos: told.qos }), period), Math.random() * period);
  });
}

let number = 0;
const opening = setInterval(() => {
  for (let n = 0; n < 10 && number < told.clients; n++) start(number++);
  if (number === told.clients) clearInterval(opening);
}, 10);
