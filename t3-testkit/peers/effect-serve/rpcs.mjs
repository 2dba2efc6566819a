// What page and server say to each other: an answer at once, one of any size in both directions, a stream, and one that holds the
// server's event loop, as a big snapshot does.
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

export const Rpcs = RpcGroup.make(
  Rpc.make("Add", { payload: { a: Schema.Number, b: Schema.Number }, success: Schema.Number }),
  Rpc.make("Echo", { payload: { text: Schema.String }, success: Schema.String }),
  Rpc.make("Count", { payload: { n: Schema.Number, ms: Schema.Number }, success: Schema.Number, stream: true }),
  Rpc.make("Hold", { payload: { ms: Schema.Number } }),
)
