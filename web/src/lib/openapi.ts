// The operations of an OpenAPI document, read from the YAML that the server prints: mappings by indentation, lists of
// mappings, plain and quoted scalars, and short mappings in braces.

export interface Parameter {
  name: string;
  in: string;
  required: boolean;
  description: string;
}
export interface Operation {
  path: string;
  method: string;
  summary: string;
  parameters: Parameter[];
}

type Yaml = string | Yaml[] | { [key: string]: Yaml };

interface Line {
  indent: number;
  text: string;
}

const DEEPEST = 60;

function scalar(text: string): Yaml {
  const t = text.trim();
  if (t.startsWith('"'))
    try {
      return JSON.parse(t) as string;
    } catch {
      return t;
    }
  if (t.startsWith("'") && t.endsWith("'")) return t.slice(1, -1).replace(/''/g, "'");
  if (t.startsWith("{") && t.endsWith("}")) {
    const out: { [key: string]: Yaml } = {};
    for (const part of t.slice(1, -1).split(/,\s*(?![^[{]*[\]}])/)) {
      const at = part.indexOf(":");
      if (at > 0) out[part.slice(0, at).trim()] = scalar(part.slice(at + 1));
    }
    return out;
  }
  if (t.startsWith("[") && t.endsWith("]")) {
    const inner = t.slice(1, -1).trim();
    return inner ? inner.split(/,\s*/).map(scalar) : [];
  }
  return t;
}

const KEY = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'[{#-][^:]*|\/[^:]*):(?:\s+(.*))?$/;

function block(lines: Line[], at: { i: number }, indent: number, depth: number): Yaml {
  const first = lines[at.i];
  if (!first || first.indent < indent || depth > DEEPEST) return "";
  const own = first.indent;
  if (first.text.startsWith("- ") || first.text === "-") {
    const list: Yaml[] = [];
    while (at.i < lines.length && lines[at.i]!.indent === own && /^-(\s|$)/.test(lines[at.i]!.text)) {
      const rest = lines[at.i]!.text.slice(1);
      const text = rest.trimStart();
      const inner = own + 1 + (rest.length - text.length);
      if (text === "") {
        at.i++;
        list.push(block(lines, at, own + 1, depth + 1));
      } else if (KEY.test(text)) {
        lines[at.i] = { indent: inner, text };
        list.push(block(lines, at, inner, depth + 1));
      } else {
        at.i++;
        list.push(scalar(text));
      }
    }
    return list;
  }
  const map: { [key: string]: Yaml } = {};
  while (at.i < lines.length && lines[at.i]!.indent === own) {
    const m = KEY.exec(lines[at.i]!.text);
    if (!m) {
      at.i++;
      continue;
    }
    const key = String(scalar(m[1]!));
    const value = m[2]?.trim() ?? "";
    at.i++;
    if (value === "" || /^[|>][-+]?$/.test(value)) {
      const next = lines[at.i];
      const deeper = next && (next.indent > own || (next.indent === own && next.text.startsWith("- ")));
      map[key] = deeper ? block(lines, at, next.indent, depth + 1) : "";
    } else map[key] = scalar(value);
    // What is deeper than its key and was not understood is passed over.
    while (at.i < lines.length && lines[at.i]!.indent > own) at.i++;
  }
  return map;
}

function entries(y: Yaml | undefined): [string, Yaml][] {
  return y && typeof y === "object" && !Array.isArray(y) ? Object.entries(y) : [];
}

function text(y: Yaml | undefined): string {
  return typeof y === "string" ? y : "";
}

const METHODS = ["get", "post", "put", "delete"];

export function readOpenApi(yaml: string): Operation[] {
  const lines = yaml
    .split("\n")
    .filter((l) => l.trim() !== "" && !/^\s*#/.test(l) && l.trim() !== "---")
    .map((l): Line => ({ indent: l.length - l.trimStart().length, text: l.trim() }));
  const document = Object.fromEntries(entries(block(lines, { i: 0 }, 0, 0)));
  const shared = Object.fromEntries(entries(Object.fromEntries(entries(document.components)).parameters));
  const out: Operation[] = [];
  for (const [path, item] of entries(document.paths)) {
    const common = Object.fromEntries(entries(item)).parameters;
    for (const [method, operation] of entries(item)) {
      if (!METHODS.includes(method)) continue;
      const fields = Object.fromEntries(entries(operation));
      const list = [common, fields.parameters].flatMap((p) => (Array.isArray(p) ? p : []));
      out.push({
        path,
        method,
        summary: text(fields.summary) || text(fields.description),
        parameters: list.map((p) => parameter(p, shared)).filter((p) => p.name !== ""),
      });
    }
  }
  return out;
}

function parameter(p: Yaml, shared: { [key: string]: Yaml }): Parameter {
  let fields = Object.fromEntries(entries(p));
  const ref = text(fields.$ref).split("/").pop();
  if (ref) fields = Object.fromEntries(entries(shared[ref]));
  return {
    name: text(fields.name),
    in: text(fields.in),
    required: text(fields.required) === "true",
    description: text(fields.description),
  };
}
