import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { PartialJSONObject } from '@lumino/coreutils';

/** Where the server extension answers, below the server's base URL. */
const API = 'nbmlops/api';

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
 * Ask the server extension for one command's document.
 *
 * Reads are GET with query arguments, writes are POST with a JSON body; every failure, of the
 * command or of the way to it, rejects with a `RequestFailed`.
 */
export async function request<T>(
  settings: ServerConnection.ISettings,
  method: 'GET' | 'POST',
  command: string,
  args: PartialJSONObject
): Promise<T> {
  const url = URLExt.join(settings.baseUrl, API, command);
  // Lab's own way past caches is a nameless query argument, which the commands would refuse.
  const cache = 'no-cache';
  let response: Response;
  try {
    response =
      method === 'GET'
        ? await ServerConnection.makeRequest(url + queryOf(args), { method, cache }, settings)
        : await ServerConnection.makeRequest(url, { method, body: JSON.stringify(args) }, settings);
  } catch {
    throw new RequestFailed(
      'server-unreachable',
      'The Jupyter server does not answer.',
      'Check that it is still running; the panel tries again by itself.'
    );
  }
  const document = await parse(response);
  if (!response.ok || document === undefined) {
    throw failureOf(response, document);
  }
  return document as T;
}

function queryOf(args: PartialJSONObject): string {
  return URLExt.objectToQueryString(args);
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
