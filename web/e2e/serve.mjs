// Serves web/dist the way the binary does (route prefix, strict CSP, precompressed assets) and passes the
// API on to a running server, so that the bundle can be tried against any Prometheus-compatible backend.
import { existsSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const dist = process.env.MEERKAT_DIST ?? fileURLToPath(new URL("../dist", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Starts the server; `prefix` is like "/" or "/some/path/". Returns its address and a function that stops it. */
export function serve(backend, prefix = "/", port = 0) {
  const upstream = new URL(backend);
  const server = createServer((req, res) => {
    const url = new URL(req.url, "http://localhost");
    if (!url.pathname.startsWith(prefix)) return res.writeHead(404).end("404 page not found");
    const path = url.pathname.slice(prefix.length);
    if (/^(api|-|metrics$)/.test(path)) {
      const out = request(
        {
          host: upstream.hostname,
          port: upstream.port,
          path: `/${path}${url.search}`,
          method: req.method,
          headers: req.headers,
        },
        (answer) => {
          res.writeHead(answer.statusCode, answer.headers);
          answer.pipe(res);
        },
      );
      out.on("error", () => res.writeHead(502).end("no backend"));
      res.on("close", () => out.destroy());
      return req.pipe(out);
    }
    const file = normalize(join(dist, path));
    if (path.startsWith("assets/") && file.startsWith(dist) && existsSync(file)) {
      const br = /\bbr\b/.test(req.headers["accept-encoding"] ?? "") && existsSync(`${file}.br`);
      res.writeHead(200, {
        "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        ...(br ? { "Content-Encoding": "br" } : {}),
      });
      return res.end(readFileSync(br ? `${file}.br` : file));
    }
    if (path.startsWith("assets/")) return res.writeHead(404).end("404 page not found");
    res.writeHead(200, {
      "Content-Type": TYPES[".html"],
      "Content-Security-Policy": POLICY,
      "Cache-Control": "no-cache",
    });
    res.end(readFileSync(join(dist, "index.html")));
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => {
      resolve({
        address: `http://127.0.0.1:${server.address().port}${prefix}`,
        stop: () => {
          server.closeAllConnections();
          server.close();
        },
      });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { address } = await serve(
    process.env.MEERKAT_URL ?? "http://127.0.0.1:9090",
    process.env.PREFIX ?? "/",
    19080,
  );
  console.log(address);
}
