// `t3 serve` as far as a proxy and a browser can tell: the page, the session's cookie, its version, an upload, server-sent events, and
// Effect's RPC server on /ws, where only a paired browser gets in. Compresses answers and WebSocket messages, as t3 does. The page is
// below the size that is compressed, its script is not. Usage: node server.mjs PORT FOLDER. A file in FOLDER named after a credential
// is good for one session; sessions are files there, too, and outlive the process.
import { existsSync, readFileSync, unlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { createHash, randomUUID } from "node:crypto"
import { join } from "node:path"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Schedule, Stream } from "effect"
import { HttpMiddleware, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { Rpcs } from "./rpcs.mjs"

const [port, folder] = process.argv.slice(2)
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const place = (kind, id) => join(folder, `${kind}-${id}`)
const known = (kind, id) => uuid.test(id) && existsSync(place(kind, id))
const file = name => readFileSync(new URL(name, import.meta.url), "utf8")
const page = file("page.html")
const script = name => HttpServerResponse.text(file(name), { contentType: "text/javascript" })

const session = HttpServerRequest.HttpServerRequest.pipe(
  Effect.map(request => known("session", request.cookies.t3_session)),
)
const json = (body, status = 200) => HttpServerResponse.jsonUnsafe(body, { status })

const pair = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { credential } = yield* request.json
  if (!known("credential", credential)) return json({ error: "unknown credential" }, 401)
  unlinkSync(place("credential", credential))
  const token = randomUUID()
  writeFileSync(place("session", token), "")
  return json({ authenticated: true }).pipe(
    HttpServerResponse.setCookieUnsafe("t3_session", token, { path: "/", httpOnly: true, sameSite: "lax" }),
  )
})

const upload = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const hash = createHash("sha256")
  let bytes = 0
  yield* Stream.runForEach(request.stream, chunk => Effect.sync(() => {
    bytes += chunk.length
    hash.update(chunk)
  }))
  return json({ bytes, sha256: hash.digest("hex") })
})

// One event as soon as the last was a while ago: what a proxy holds back shows as events that come together.
const events = HttpServerResponse.stream(
  Stream.range(1, 5).pipe(
    Stream.mapEffect(n => Effect.delay(Effect.succeed(`data: ${n}\n\n`), "300 millis")),
    Stream.encodeText,
  ),
  { contentType: "text/event-stream", headers: { "cache-control": "no-cache" } },
)

const routes = Layer.mergeAll(
  HttpRouter.add("GET", "/", HttpServerResponse.html(page)),
  HttpRouter.add("GET", "/page.js", script("page.bundle.js")),
  // The page with the client of effect 4.0.1.
  HttpRouter.add("GET", "/4.0.1", HttpServerResponse.html(page.replace("/page.js", "/page-4.0.1.js"))),
  HttpRouter.add("GET", "/page-4.0.1.js", script("page-4.0.1.bundle.js")),
  HttpRouter.add("GET", "/.well-known/t3/environment", json({
    environmentId: randomUUID(),
    label: "effect-serve",
    platform: { os: "linux", arch: "x64" },
    serverVersion: "0.0.42-nightly.20261128.7",
    capabilities: { repositoryIdentity: true },
  })),
  HttpRouter.add("GET", "/api/auth/session", Effect.map(session, authenticated => json({ authenticated }))),
  HttpRouter.add("POST", "/api/auth/browser-session", pair),
  HttpRouter.add("POST", "/upload", upload),
  HttpRouter.add("GET", "/events", events),
)

const handlers = Rpcs.toLayer({
  Add: ({ a, b }) => Effect.succeed(a + b),
  Echo: ({ text }) => Effect.succeed(text),
  Count: ({ n, ms }) => Stream.range(1, n).pipe(Stream.mapEffect(i => Effect.delay(Effect.succeed(i), ms))),
  Hold: ({ ms }) => Effect.sync(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)),
})

const rpc = Layer.effectDiscard(Effect.gen(function* () {
  const router = yield* HttpRouter.HttpRouter
  const socket = yield* RpcServer.toHttpEffectWebsocket(Rpcs)
  yield* router.add("GET", "/ws", Effect.flatMap(session, ok => ok ? socket : Effect.succeed(json({}, 401))))
})).pipe(Layer.provide([handlers, RpcSerialization.layerJson]))

HttpRouter.serve(Layer.mergeAll(routes, rpc), {
  disableLogger: true,
  disableListenLog: true,
  middleware: HttpMiddleware.compression(),
}).pipe(
  Layer.provide(NodeHttpServer.layer(createServer, {
    port: Number(port),
    host: "127.0.0.1",
    websocket: { perMessageDeflate: true },
  })),
  Layer.launch,
  NodeRuntime.runMain,
)
