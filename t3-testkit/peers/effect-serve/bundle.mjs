// Makes the page's scripts of page.mjs, for the browser: with Effect as installed (any frame of the server is life), and with
// effect 4.0.1 as t3 patched it (only a Pong is, and the client gives up at the third tick without one).
import { readFileSync } from "node:fs"
import { buildSync, build } from "esbuild"

const common = { entryPoints: ["page.mjs"], bundle: true, format: "iife", platform: "browser", logLevel: "warning" }
buildSync({ ...common, outfile: "page.bundle.js" })

// Stock 4.0.1 gives up at the first tick without a Pong, and has no hook for it.
const stock = "if (!recievedPong) return latch.open;\n    recievedPong = false;"
const patched = `if (recievedPong) missed = 0;
    else if (++missed >= 3) {
      missed = 0;
      globalThis.t3.timedOut();
      return latch.open;
    }
    recievedPong = false;`
const start = "let recievedPong = true;"
const threeMisses = {
  name: "three-misses",
  setup(bundler) {
    bundler.onLoad({ filter: /effect-4\.0\.1\/dist\/rpc\/RpcClient\.js$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8")
      if (!text.includes(stock) || !text.includes(start)) throw new Error(`${path} is not that of effect 4.0.1`)
      return { contents: text.replace(stock, patched).replace(start, `${start}\n  let missed = 0;`), loader: "js" }
    })
  },
}
await build({ ...common, outfile: "page-4.0.1.bundle.js", alias: { effect: "effect-4.0.1" }, plugins: [threeMisses] })
