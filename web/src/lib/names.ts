// Label names in paths of the API.

/** Names outside the classic alphabet go into the path in the escaping of Prometheus. */
export function escapeName(name: string): string {
  if (/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(name)) return name;
  let out = "U__";
  for (const c of name) {
    if (c === "_") out += "__";
    else if (/[a-zA-Z0-9:]/.test(c)) out += c;
    else out += `_${c.codePointAt(0)!.toString(16)}_`;
  }
  return out;
}
