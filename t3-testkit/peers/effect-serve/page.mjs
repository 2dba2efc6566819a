// The page: Effect's RPC client as t3 uses it (stock heartbeat, stock retries), and `window.t3` by which a test makes it call.
import { Effect, Layer, ManagedRuntime, Stream } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Socket } from "effect/socket"
import { Rpcs } from "./rpcs.mjs"

const seen = { connects: 0, disconnects: 0, timeouts: 0, pongs: 0, at: {} }
const say = text => {
  document.getElementById("log").textContent += `${(performance.now() / 1000).toFixed(2)} ${text}\n`
}
const note = what => Effect.sync(() => {
  seen[what] += 1
  seen.at[what] = performance.now()
  say(what)
})
// The browser's own WebSocket, listened to by one more.
const sockets = Layer.succeed(Socket.WebSocketConstructor)((url, protocols) => {
  const socket = new WebSocket(url, protocols)
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
  add: (a, b) => call(client => client.Add({ a, b })),
  echo: async size => {
    const text = "x".repeat(size)
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
// Connects at once, as t3 does, not with the first call.
runtime.runPromise(Effect.void)
