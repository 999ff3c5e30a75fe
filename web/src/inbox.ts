// Notes between the stream and the page: applied in the frames of the browser, a few milliseconds' worth in each.
import type { Note } from "./gen/routeguide/v1/note_service_pb";

/** Milliseconds of a frame for notes. */
const budget = 6;

/** Notes between two looks at the clock. */
const batch = 64;

/** Notes that wait, beyond which the stream is not read. */
const maxWaiting = 2000;

/** A queue that a frame takes from, with backpressure. */
export class Inbox {
  private waiting: { note: Note; live: boolean }[] = [];
  private next = 0;
  private isScheduled = false;
  private resume: (() => void)[] = [];

  /** Apply is called for each note, and afterBatch once a frame. */
  constructor(
    private readonly apply: (note: Note, live: boolean) => void,
    private readonly afterBatch: () => void,
  ) {}

  /** Returns when there is room for more. */
  async put(notes: readonly Note[], live: boolean): Promise<void> {
    for (const note of notes) {
      this.waiting.push({ note, live });
    }
    this.schedule();
    if (this.waiting.length - this.next > maxWaiting) {
      await new Promise<void>((resolve) => this.resume.push(resolve));
    }
  }

  /** Applies all that waits. */
  flush(): void {
    this.take(Infinity);
  }

  /** Forgets what waits. */
  clear(): void {
    this.waiting = [];
    this.next = 0;
    this.release();
  }

  private schedule(): void {
    if (this.isScheduled || this.next >= this.waiting.length) {
      return;
    }
    this.isScheduled = true;
    const run = () => {
      this.isScheduled = false;
      this.take(budget);
      this.schedule();
    };
    // Hidden pages have no frames.
    if (document.hidden) {
      setTimeout(run, 100);
    } else {
      requestAnimationFrame(run);
    }
  }

  private take(milliseconds: number): void {
    const end = performance.now() + milliseconds;
    while (this.next < this.waiting.length) {
      const item = this.waiting[this.next++];
      if (item) {
        this.apply(item.note, item.live);
      }
      if (this.next % batch === 0 && performance.now() > end) {
        break;
      }
    }
    if (this.next >= this.waiting.length || this.next >= maxWaiting) {
      this.waiting = this.waiting.slice(this.next);
      this.next = 0;
    }
    if (this.waiting.length - this.next <= maxWaiting / 2) {
      this.release();
    }
    this.afterBatch();
  }

  private release(): void {
    for (const resolve of this.resume.splice(0)) {
      resolve();
    }
  }
}
