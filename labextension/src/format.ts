/** Numbers, times and texts as people read them. */

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export function shortCommit(commit: string): string {
  return commit.slice(0, 7);
}

/** A metric with four significant digits; what is not a number is a dash. */
export function figure(value: number | null): string {
  if (value === null || !Number.isFinite(value)) {
    return '–';
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(2);
  }
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < MINUTE) {
    return `${whole} s`;
  }
  if (whole < HOUR) {
    return `${Math.floor(whole / MINUTE)} min ${whole % MINUTE} s`;
  }
  return `${Math.floor(whole / HOUR)} h ${Math.floor((whole % HOUR) / MINUTE)} min`;
}

/** Seconds between two times; until `now` (milliseconds) while there is no end. */
export function elapsed(start: string | null, end: string | null, now: number): number | null {
  if (start === null) {
    return null;
  }
  return ((end === null ? now : Date.parse(end)) - Date.parse(start)) / 1000;
}

export function ago(time: string, now: number): string {
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  if (seconds < MINUTE) {
    return 'just now';
  }
  if (seconds < HOUR) {
    return `${Math.floor(seconds / MINUTE)} min ago`;
  }
  if (seconds < DAY) {
    return `${Math.floor(seconds / HOUR)} h ago`;
  }
  return new Date(time).toLocaleDateString();
}

export function byteSize(bytes: number): string {
  if (bytes < 1024) {
    return `${bytes} B`;
  }
  const kib = bytes / 1024;
  return kib < 1024 ? `${kib.toFixed(kib < 10 ? 1 : 0)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
}

/** A parameter's value as it is written in a notebook. */
export function literal(value: unknown): string {
  if (value === null || value === undefined) {
    return 'None';
  }
  if (typeof value === 'boolean') {
    return value ? 'True' : 'False';
  }
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A line of a log without the escape sequences that colour a terminal. */
export function withoutEscapes(line: string): string {
  return line.replace(/\u001b\[[0-?]*[ -/]*[@-~]/g, '');
}

/** The URL when it is one that a link may have: http or https, nothing else. */
export function webAddress(url: string): string | null {
  try {
    const { protocol } = new URL(url);
    return protocol === 'http:' || protocol === 'https:' ? url : null;
  } catch {
    return null;
  }
}

/** The folder that a contents path is in; the root is an empty text. */
export function folderOf(path: string): string {
  return path.split('/').slice(0, -1).join('/');
}

export function joinPath(folder: string, path: string): string {
  return folder === '' || folder === '.' ? path : `${folder}/${path}`;
}
