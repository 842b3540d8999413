/** What came of a request: a value, or what people are told instead of it. */
import { RequestFailed } from './request';

/** What went wrong, and what to do about it. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

export type Outcome<T> =
  | { readonly value: T; readonly problem?: undefined }
  | { readonly value?: undefined; readonly problem: Problem };

export async function settled<T>(answer: Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await answer };
  } catch (reason) {
    return { problem: problemOf(reason) };
  }
}

export function problemOf(reason: unknown): Problem {
  if (reason instanceof RequestFailed) {
    return { code: reason.code, message: reason.message, hint: reason.hint };
  }
  const message = reason instanceof Error ? reason.message : String(reason);
  return { code: 'unexpected', message, hint: "The browser's console may say more." };
}
