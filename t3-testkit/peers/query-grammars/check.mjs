// Reads a JSON list of {language, text} from stdin, parses each with the grammar of its language, and writes a list of what is wrong
// with each: null, or where the grammar had to guess. Never evaluates a query.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parser as promql } from "@prometheus-io/lezer-promql";

// Its ES build has a name that node does not take for a module.
const { parser: logql } = createRequire(import.meta.url)("@grafana/lezer-logql");
const grammars = { logql, promql };

function wrong({ language, text }) {
  const grammar = grammars[language];
  if (!grammar) return `no grammar of ${language}`;
  let found = null;
  grammar.parse(text).iterate({
    enter(node) {
      if (found === null && node.type.isError) {
        found = `at ${node.from}: ${JSON.stringify(text.slice(node.from, node.from + 30))}`;
      }
    },
  });
  return found;
}

const queries = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(queries.map(wrong)));
