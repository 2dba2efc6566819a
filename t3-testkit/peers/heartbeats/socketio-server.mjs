// A socket.io server: it pings, with a text message of one byte. Interval and timeout in the ratio of its defaults (25 s, 20 s).
// Usage: node socketio-server.mjs PORT INTERVAL_MS. The event "hold" blocks its event loop for a time.
import { createServer } from "node:http"
import { Server } from "socket.io"

const [port, interval] = process.argv.slice(2).map(Number)
const http = createServer((request, response) => response.end("ok"))
const io = new Server(http, { pingInterval: interval, pingTimeout: interval * 0.8 })
io.on("connection", socket => {
  socket.on("hold", ms => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms))
})
http.listen(port, "127.0.0.1")
