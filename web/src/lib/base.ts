// Where the application is mounted. Every page is exactly one segment below the mount point, so the directory of the
// document's address is the mount point: no part of the bundle has to know the route prefix.

/** Path of the mount point, always ending in a slash. */
export function basePath(): string {
  const path = new URL(document.baseURI).pathname;
  return path.endsWith("/") ? path : path.slice(0, path.lastIndexOf("/") + 1);
}

/** Absolute address of an application path such as "query?g0.expr=up". */
export function urlOf(path: string): string {
  return basePath() + path.replace(/^\/+/, "");
}

/** Full address including the origin, for links that leave the page (curl, Grafana). */
export function fullUrl(path: string): string {
  return location.origin + urlOf(path);
}

/** The application path of a location path, without prefix and without leading slash; null when outside. */
export function pathWithin(pathname: string): string | null {
  const base = basePath();
  if (pathname.startsWith(base)) return pathname.slice(base.length);
  return `${pathname}/` === base ? "" : null;
}
