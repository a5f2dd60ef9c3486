// Calls to the HTTP API: envelope, errors in words, cancellation.
import { fullUrl, urlOf } from "./base";

export interface Answer<T> {
  data: T;
  warnings: string[];
  infos: string[];
  /** Milliseconds between asking and having parsed the answer. */
  took: number;
  /** Size of the body in bytes as decoded. */
  bytes: number;
}

export type Params = Record<string, string | number | string[] | undefined>;

/** A failed call. `place` is the position in the query text that the server complained about. */
export class ApiError extends Error {
  readonly place: { line: number; column: number } | undefined;
  constructor(
    readonly kind: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
    const at = /\b(\d+):(\d+): parse error/.exec(message);
    this.place = at ? { line: Number(at[1]), column: Number(at[2]) } : undefined;
  }
}

/** True when the call ended because its caller no longer wants it. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function encodeParams(params: Params): string {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined) continue;
    if (Array.isArray(value)) for (const one of value) out.append(name, one);
    else out.append(name, String(value));
  }
  return out.toString();
}

/** Address of a call as a person would open it. */
export function callUrl(path: string, params: Params = {}): string {
  const query = encodeParams(params);
  return fullUrl(`api/v1/${path}${query ? `?${query}` : ""}`);
}

// Past this length a query goes into a form body: proxies commonly refuse request lines above 4 to 8 kB.
const LONGEST_QUERY_STRING = 1800;
const FORM_PATHS = /^(query|query_range|query_exemplars|series|labels|format_query|parse_query)$/;

export async function call<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<Answer<T>> {
  const began = performance.now();
  const query = encodeParams(params);
  const asForm = query.length > LONGEST_QUERY_STRING && FORM_PATHS.test(path);
  const address = urlOf(`api/v1/${path}`);
  let response: Response;
  let text: string;
  try {
    response = await fetch(asForm || !query ? address : `${address}?${query}`, {
      method: asForm ? "POST" : "GET",
      headers: { Accept: "application/json" },
      ...(asForm ? { body: new URLSearchParams(query) } : {}),
      ...(signal ? { signal } : {}),
      cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(
      "unreachable",
      "The server does not answer. Is it running and reachable from here?",
      0,
    );
  }
  if (response.status === 204)
    return { data: undefined as T, warnings: [], infos: [], took: performance.now() - began, bytes: 0 };
  let body: {
    status?: string;
    data?: T;
    error?: string;
    errorType?: string;
    warnings?: string[];
    infos?: string[];
  };
  try {
    body = JSON.parse(text);
  } catch {
    throw notJson(response.status, text);
  }
  if (!response.ok || body.status !== "success") {
    throw new ApiError(
      body.errorType ?? "internal",
      body.error ?? `The server answered with status ${response.status}.`,
      response.status,
    );
  }
  return {
    data: body.data as T,
    warnings: body.warnings ?? [],
    infos: body.infos ?? [],
    took: performance.now() - began,
    bytes: text.length,
  };
}

function notJson(status: number, text: string): ApiError {
  if (status === 503) return new ApiError("starting", "The server is starting and not ready yet.", status);
  if (status === 404) return new ApiError("not_found", "This server does not offer this call.", status);
  if (status === 401 || status === 403)
    return new ApiError("unauthorized", "The server refuses this call: sign in or ask for access.", status);
  return new ApiError("internal", `Unexpected answer (status ${status}): ${text.slice(0, 200)}`, status);
}

/** Calls a path that changes something: a JSON body, or parameters in the address when there is none. */
export async function post<T>(path: string, params: Params, body?: unknown): Promise<T> {
  const query = encodeParams(params);
  let response: Response;
  let text: string;
  try {
    response = await fetch(urlOf(`api/v1/${path}${query ? `?${query}` : ""}`), {
      method: "POST",
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
      cache: "no-store",
    });
    text = await response.text();
  } catch {
    throw new ApiError("unreachable", "The server does not answer. Nothing is known to have changed.", 0);
  }
  if (response.status === 204) return undefined as T;
  let answer: { status?: string; data?: T; error?: string; errorType?: string };
  try {
    answer = JSON.parse(text);
  } catch {
    throw notJson(response.status, text);
  }
  if (!response.ok || answer.status !== "success")
    throw new ApiError(
      answer.errorType ?? "internal",
      answer.error ?? `The server answered with status ${response.status}.`,
      response.status,
    );
  return answer.data as T;
}

/** Any failure as a sentence. */
export function explainError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
