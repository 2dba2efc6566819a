// The page: Effect's RPC client as t3 uses it (its heartbeat, stock retries), and `window.t3` by which a test makes it call.
import { Effect, Layer, ManagedRuntime, Stream } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Socket } from "effect/socket"
import { Rpcs } from "./rpcs.mjs"

const seen = { connects: 0, disconnects: 0, timeouts: 0, pings: [], pongs: 0, extensions: "", at: {} }
const say = text => {
  document.getElementById("log").textContent += `${(performance.now() / 1000).toFixed(2)} ${text}\n`
}
const note = what => Effect.sync(() => {
  seen[what] += 1
  seen.at[what] = performance.now()
  say(what)
})
// The browser's own WebSocket, and what passes through it.
const sockets = Layer.succeed(Socket.WebSocketConstructor)((url, protocols) => {
  const socket = new WebSocket(url, protocols)
  const send = socket.send.bind(socket)
  socket.send = data => {
    if (data === '{"_tag":"Ping"}') seen.pings.push(performance.now())
    send(data)
  }
  socket.addEventListener("open", () => {
    seen.extensions = socket.extensions
  })
  socket.addEventListener("message", event => {
    if (event.data === '{"_tag":"Pong"}') seen.pongs += 1
  })
  return socket
})

const hooks = Layer.succeed(RpcClient.ConnectionHooks)({ onConnect: note("connects"), onDisconnect: note("disconnects") })
const protocol = RpcClient.layerProtocolSocket({ onPingTimeout: note("timeouts") }).pipe(
  Layer.provide(Socket.layerWebSocket(`ws://${location.host}/ws`)),
  Layer.provide([sockets, RpcSerialization.layerJson, hooks]),
)
const runtime = ManagedRuntime.make(protocol)
const call = make => runtime.runPromise(Effect.scoped(Effect.flatMap(RpcClient.make(Rpcs), make)))

window.t3 = {
  seen,
  say,
  // For the client that has no hook for it.
  timedOut: () => Effect.runSync(note("timeouts")),
  add: (a, b) => call(client => client.Add({ a, b })),
  // Of a text that compression does not shorten by half.
  echo: async size => {
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    const text = Array.from({ length: size }, () => letters[Math.floor(Math.random() * 64)]).join("")
    return (await call(client => client.Echo({ text }))) === text
  },
  count: (n, ms) => call(client => Stream.runCollect(client.Count({ n, ms })).pipe(Effect.map(all => Array.from(all)))),
  hold: ms => call(client => client.Hold({ ms })),
  upload: async size => {
    const body = new Uint8Array(size).map((_, n) => n % 251)
    const answer = await (await fetch("/upload", { method: "POST", body })).json()
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", body))
    const hex = Array.from(hash, byte => byte.toString(16).padStart(2, "0")).join("")
    return answer.bytes === size && answer.sha256 === hex
  },
  // When each of five events came, in milliseconds since the request.
  events: () => new Promise((done, fail) => {
    const began = performance.now()
    const times = []
    const source = new EventSource("/events")
    source.onmessage = () => {
      times.push(performance.now() - began)
      if (times.length === 5) {
        source.close()
        done(times)
      }
    }
    source.onerror = () => fail(new Error(`the stream ended after ${times.length} events`))
  }),
}
// Asks for the server's version and connects at once, as t3 does, not with the first call.
fetch("/.well-known/t3/environment").then(answer => answer.json()).then(environment => {
  seen.version = environment.serverVersion
  return runtime.runPromise(Effect.void)
})
