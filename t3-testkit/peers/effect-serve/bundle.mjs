// Makes the page's script of Effect and page.mjs, for the browser.
import { buildSync } from "esbuild"

buildSync({ entryPoints: ["page.mjs"], outfile: "page.bundle.js", bundle: true, format: "iife", platform: "browser", logLevel: "warning" })
