import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { PartialJSONObject } from '@lumino/coreutils';

/** Where the server extension answers, below the server's base URL. */
const API = 'nbmlops/api';
const ARTIFACT = 'nbmlops/artifact';

/** Query arguments; one with several values is sent several times. */
export type Query = Readonly<Record<string, string | number | boolean | readonly string[]>>;

/** A request that did not give what was asked: what happened, and what to do next. */
export class RequestFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string
  ) {
    super(message);
    this.name = 'RequestFailed';
  }
}

/**
 * Ask the server extension for the document of a command that reads.
 *
 * Every failure, of the command or of the way to it, rejects with a `RequestFailed`.
 */
export async function read<T>(
  settings: ServerConnection.ISettings,
  command: string,
  query: Query
): Promise<T> {
  return documentOf(await ask(settings, `${URLExt.join(API, command)}${queryOf(query)}`, 'GET'));
}

/** Have the server extension do a command that changes something, and take its document. */
export async function change<T>(
  settings: ServerConnection.ISettings,
  command: string,
  body: PartialJSONObject
): Promise<T> {
  return documentOf(await ask(settings, URLExt.join(API, command), 'POST', JSON.stringify(body)));
}

/** Ask the server extension for the bytes of a file that a run left. */
export async function file(settings: ServerConnection.ISettings, query: Query): Promise<Blob> {
  const response = await ask(settings, `${ARTIFACT}${queryOf(query)}`, 'GET');
  if (!response.ok) {
    throw failureOf(response, await parse(response));
  }
  return response.blob();
}

async function ask(
  settings: ServerConnection.ISettings,
  address: string,
  method: 'GET' | 'POST',
  body?: string
): Promise<Response> {
  const url = `${settings.baseUrl}${address}`;
  // Lab's own way past caches is a nameless query argument, which the commands would refuse.
  const init = body === undefined ? { method, cache: 'no-cache' as const } : { method, body };
  try {
    return await ServerConnection.makeRequest(url, init, settings);
  } catch {
    throw new RequestFailed(
      'server-unreachable',
      'The Jupyter server does not answer.',
      'Check that it is still running; the panel tries again by itself.'
    );
  }
}

async function documentOf<T>(response: Response): Promise<T> {
  const found = await parse(response);
  if (!response.ok || found === undefined) {
    throw failureOf(response, found);
  }
  return found as T;
}

function queryOf(query: Query): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (typeof value === 'object' ? value : [value]).map(one => [name, String(one)])
  );
  return `?${new URLSearchParams(pairs).toString()}`;
}

async function parse(response: Response): Promise<unknown> {
  try {
    return (await response.json()) as unknown;
  } catch {
    return undefined;
  }
}

function failureOf(response: Response, document: unknown): RequestFailed {
  const error = isObject(document) && isObject(document.error) ? document.error : undefined;
  if (error && typeof error.message === 'string') {
    return new RequestFailed(textOr(error.code, 'error'), error.message, textOr(error.hint, ''));
  }
  if (response.status === 404) {
    return new RequestFailed(
      'no-server-extension',
      'This Jupyter server does not know nbmlops.',
      "Install it where the server runs: pip install 'nbmlops[lab]', then restart the server."
    );
  }
  if (response.status === 401 || response.status === 403) {
    return new RequestFailed(
      'not-logged-in',
      'The Jupyter server refused the request.',
      'Reload the page and log in again.'
    );
  }
  return new RequestFailed(
    'bad-answer',
    `The Jupyter server answered ${response.status} ${response.statusText}.`.replace(' .', '.'),
    "The reason is in the server's log."
  );
}

function textOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
