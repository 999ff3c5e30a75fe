// The page's one long stream: the notes of the rectangle that the map shows.
import { ConnectError } from "@connectrpc/connect";
import { type Area, askable, covers, padded, rectangleOf, sizeRatio } from "./area";
import { wait } from "./backoff";
import type { Connection } from "./connection";
import { follow, isTooManyLocations } from "./follow";
import type { Note } from "./gen/routeguide/v1/note_service_pb";

/** Milliseconds for which the map must rest before the page follows another rectangle. */
const debounceTime = 250;

/** Milliseconds for which a hidden page keeps its stream: browsers have six connections in clear for all tabs. */
const hiddenTime = 60_000;

/** The followed rectangle is larger than the view by this share on each side, so that short ways need no new stream. */
const margin = 0.2;

/** How often larger than the view a rectangle may be that is still followed. */
const maxRatio = 8;

export interface FeedOptions {
  /** The page follows another area, from its newest notes on: other notes are to be forgotten. */
  readonly onArea: (area: Area) => void;
  /** The server could not continue: what has come until now may be gone. */
  readonly onReset: () => void;
  /** The notes that come next are a snapshot: those missing in it at {@link onCurrent} are gone. */
  readonly onSnapshot: () => void;
  /** Notes: those of a snapshot, or as they are left. It returns when there is room for more. */
  readonly onNotes: (notes: readonly Note[], live: boolean) => Promise<void>;
  /** All notes of the snapshot have come; or all that were left while the connection was lost. */
  readonly onCurrent: (afterSnapshot: boolean) => void;
}

/** Follows the view of the map: one stream at a time. */
export class Feed {
  private area: Area | undefined;
  private wanted: Area | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  private stop = new AbortController();
  private ended: Promise<void> = Promise.resolve();
  private wake = new AbortController();
  private isPaused = false;

  constructor(
    private readonly connection: Connection,
    private readonly options: FeedOptions,
  ) {
    window.addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => this.visibilityChanged());
  }

  /** Follows a view, once it has rested; at once if it is the first one. */
  show(view: Area): void {
    clearTimeout(this.timer);
    this.wanted = view;
    if (!this.area) {
      this.start(view);
      return;
    }
    this.timer = setTimeout(() => {
      if (this.isRefused || !this.area || !covers(this.area, view) || sizeRatio(this.area, view) > maxRatio) {
        this.start(view);
      }
    }, debounceTime);
  }

  /** The area whose notes are heard; undefined if the server has refused it. */
  get followed(): Area | undefined {
    return this.isRefused ? undefined : this.area;
  }

  private get isRefused(): boolean {
    return this.connection.state === "too-many" || this.connection.state === "failed";
  }

  /** Follows anew, after an error that no repetition mends. */
  restart(): void {
    if (this.wanted) {
      this.start(this.wanted);
    }
  }

  private start(view: Area, share = margin): void {
    this.stop.abort();
    const stop = new AbortController();
    this.stop = stop;
    const area = askable(padded(view, share));
    this.area = area;
    this.options.onArea(area);
    // A server that refuses the view with what is around it may show the view alone.
    const narrow = share > 0 ? () => this.start(view, 0) : undefined;
    const before = this.ended;
    this.ended = before.then(() => this.run(area, stop.signal, narrow));
  }

  private async run(area: Area, signal: AbortSignal, narrow: (() => void) | undefined): Promise<void> {
    if (signal.aborted) {
      return;
    }
    if (this.connection.state !== "live" && this.connection.state !== "unauthenticated") {
      this.connection.set("connecting");
    }
    let inSnapshot = true;
    let isCurrent = false;
    this.options.onSnapshot();
    const filter = { filter: { case: "rectangle" as const, value: rectangleOf(area) }, newest: 1 };
    try {
      for await (const event of follow((request, options) => this.connection.notes.followNotes(request, options), filter, {
        signal,
        wait: (milliseconds, ending) => this.rest(milliseconds, ending),
      })) {
        if (event.lost) {
          this.connection.setError(event.lost.error);
          isCurrent = false;
          continue;
        }
        if (event.reset) {
          inSnapshot = true;
          this.options.onReset();
          this.options.onSnapshot();
        }
        if (event.notes.length > 0) {
          await this.options.onNotes(event.notes, !inSnapshot);
        }
        if (signal.aborted) {
          return;
        }
        if (event.current) {
          this.options.onCurrent(inSnapshot);
          inSnapshot = false;
          isCurrent = true;
        }
        // While another call waits for a token, this stream, which was allowed before, does not take the form away.
        if (isCurrent && this.connection.state !== "live" && this.connection.state !== "unauthenticated") {
          this.connection.set("live");
        }
      }
    } catch (error) {
      const failed = ConnectError.from(error);
      if (signal.aborted) {
        return;
      }
      if (narrow && isTooManyLocations(failed)) {
        narrow();
      } else {
        this.connection.setError(failed);
      }
    }
  }

  /** Waits before the next call: no longer than until the network is back, or the page is seen again. */
  private async rest(milliseconds: number, signal: AbortSignal): Promise<void> {
    await wait(milliseconds, AbortSignal.any([signal, this.wake.signal]));
  }

  /** Does not wait any longer; what was refused may be allowed now. */
  private hurry(): void {
    if (this.isRefused) {
      this.restart();
      return;
    }
    this.wake.abort();
    this.wake = new AbortController();
  }

  private visibilityChanged(): void {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => {
        this.isPaused = true;
        this.stop.abort();
        this.connection.set("connecting");
      }, hiddenTime);
      return;
    }
    if (this.isPaused) {
      this.isPaused = false;
      this.restart();
    } else {
      this.hurry();
    }
  }
}
