// Exponential backoff with full jitter.

const minBackoff = 500;
const maxBackoff = 20_000;

/** The delay before a retry is random, between 0 and a bound that doubles from 0.5 to 20 s. */
export class Backoff {
  private bound = 0;

  constructor(private readonly random: () => number = Math.random) {}

  /** The milliseconds before the next retry. */
  next(): number {
    this.bound = Math.min(Math.max(2 * this.bound, minBackoff), maxBackoff);
    return this.random() * this.bound;
  }

  /** Progress: the next bound is the least. */
  reset(): void {
    this.bound = 0;
  }
}

/** Waits for milliseconds, or until the signal aborts. */
export type Wait = (milliseconds: number, signal: AbortSignal) => Promise<void>;

export const wait: Wait = (milliseconds, signal) =>
  new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
