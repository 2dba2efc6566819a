// A socket.io client. Usage: node socketio-client.mjs ADDRESS USER. Prints what happens, a word a line: open, ping, and the reason of
// the end. Orders on stdin, a line each: "close", "hold MS" (the server's event loop).
import { createInterface } from "node:readline"
import { io } from "socket.io-client"

const [address, user] = process.argv.slice(2)
const headers = { "X-authentik-username": `${user}@example.org`, "X-Forwarded-For": "203.0.113.7", "Cf-Ray": `ray-${user}` }
const client = io(`http://${address}`, { transports: ["websocket"], extraHeaders: headers, reconnection: false })
client.on("connect", () => console.log("open"))
client.on("connect_error", error => console.log("refused", error.message))
client.on("disconnect", reason => console.log("end", reason))
client.io.on("ping", () => console.log("ping"))
createInterface({ input: process.stdin }).on("line", line => {
  const [order, number] = line.split(" ")
  if (order === "close") client.disconnect()
  if (order === "hold") client.emit("hold", Number(number))
})
