// A WebSocket without a heartbeat of its own that answers Ping frames, as a browser's does. Usage: node browser-client.mjs ADDRESS USER.
// Prints what happens, a word a line: open, ping, end. Orders on stdin, a line each: "close" (Close 1000), "hold MS" (sent as a
// message: the server's event loop).
import { createInterface } from "node:readline"
import { WebSocket } from "ws"

const [address, user] = process.argv.slice(2)
const headers = { "X-authentik-username": `${user}@example.org`, "X-Forwarded-For": "203.0.113.7", "Cf-Ray": `ray-${user}` }
const client = new WebSocket(`ws://${address}/ws`, { headers })
client.on("open", () => console.log("open"))
client.on("ping", () => console.log("ping"))
client.on("error", error => console.log("error", error.message))
client.on("close", () => {
  console.log("end")
  process.exit()
})
createInterface({ input: process.stdin }).on("line", line => {
  const [order, number] = line.split(" ")
  if (order === "close") client.close(1000)
  if (order === "hold") client.send(number)
})
