// Following a location or a rectangle, through broken connections. Knows no page.
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type CallOptions } from "@connectrpc/connect";
import { Backoff, wait, type Wait } from "./backoff";
import type { FollowNotesResponse, Note } from "./gen/routeguide/v1/note_service_pb";
import { type Location, locationKey } from "./location";

/** The time without a response after which a call counts as broken. The server sends one at least every 20 seconds. */
export const silenceTimeout = 45_000;

/** The codes of FollowNotes after which the contract says not to repeat the call, and that of a server without it. */
const finalCodes: readonly Code[] = [Code.InvalidArgument, Code.Unauthenticated, Code.PermissionDenied, Code.Unimplemented];

/** Whether no repetition of a call that reads mends an error. */
export function isFinal(error: ConnectError): boolean {
  return (finalCodes.includes(error.code) && !isOfTransport(error)) || isTooManyLocations(error);
}

/**
 * Whether the client made up an error, of a stream that was cut or of the status of a proxy that knows no RPC, which may be another one
 * later. But status 401 asks for a token, whoever sends it.
 */
function isOfTransport(error: ConnectError): boolean {
  return error.code !== Code.Unauthenticated && /^(protocol error: .*|HTTP \d{3})$/s.test(error.rawMessage);
}

/** Whether the snapshot of a rectangle was refused for its size: a google.rpc.ErrorInfo says so. */
export function isTooManyLocations(error: ConnectError): boolean {
  return error.details.some((detail) =>
    "type" in detail && detail.type === "google.rpc.ErrorInfo" && reasonOf(detail.value) === "TOO_MANY_LOCATIONS");
}

/** The first field of an encoded google.rpc.ErrorInfo. */
function reasonOf(info: Uint8Array): string {
  const reader = new BinaryReader(info);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1) {
      return reader.string();
    }
    reader.skip(type, field);
  }
  return "";
}

/**
 * A step of {@link follow}. The fields are in the order in which they count: a reset comes before the notes of the same event,
 * and current after them.
 */
export interface FollowEvent {
  /** The error of a call that broke, and the milliseconds after which the next one begins. */
  readonly lost?: { readonly error: ConnectError; readonly retryAfter: number };
  /**
   * The server could not continue where it was: notes may be missing. It starts again with the newest notes of each location.
   * What was heard until now is to be discarded, once current.
   */
  readonly reset: boolean;
  /** New notes, those of one location in the order of their positions. */
  readonly notes: readonly Note[];
  /** Set once after the start, after each lost call and after each reset: every note that was left before has been heard. */
  readonly current: boolean;
}

/** What to follow: the fields of FollowNotesRequest but the cursor. */
export interface Filter {
  readonly filter:
    | { case: "location"; value: Location }
    | { case: "rectangle"; value: { lo: Location; hi: Location } };
  readonly newest: number;
}

/** FollowNotes of a client of NoteService. */
export type FollowNotes = (
  request: Filter & { cursor: Uint8Array },
  options: CallOptions & { signal: AbortSignal },
) => AsyncIterable<FollowNotesResponse>;

export interface FollowOptions {
  /** Ends following. */
  readonly signal: AbortSignal;
  readonly random?: () => number;
  readonly wait?: Wait;
  readonly silenceTimeout?: number;
}

/**
 * Follows what the filter says: the newest notes of each location, and then every note as it is left. It calls FollowNotes, and
 * again with the last cursor whenever a call breaks or is silent for 45 seconds, with exponential backoff and full jitter.
 * A call that brings a new note or becomes current is progress, and resets the backoff.
 *
 * No note is missing, unless there is a reset, and none comes twice. It ends when the signal aborts, and throws the error
 * that no retry can mend.
 */
export async function* follow(call: FollowNotes, filter: Filter, options: FollowOptions): AsyncGenerator<FollowEvent, void, void> {
  const { signal } = options;
  const pause = options.wait ?? wait;
  const backoff = new Backoff(options.random);
  const heard = new Positions();
  let cursor = new Uint8Array();
  let started = false;
  while (!signal.aborted) {
    const watchdog = new Watchdog(signal, options.silenceTimeout ?? silenceTimeout);
    // Without a cursor, this call begins with the newest notes, and those before them may be missing.
    let reset = started && cursor.length === 0;
    let error: ConnectError;
    try {
      for await (const response of call({ ...filter, cursor }, { signal: watchdog.signal })) {
        watchdog.stop(); // The time that the page takes is not the server's.
        if (signal.aborted) {
          return;
        }
        started = true;
        reset ||= response.reset;
        if (reset) {
          heard.clear();
        }
        const notes = response.notes.filter((note) => heard.advance(note));
        if (response.current || notes.length > 0) {
          backoff.reset();
        }
        yield { reset, notes, current: response.current };
        reset = false;
        if (response.cursor.length > 0) {
          cursor = new Uint8Array(response.cursor);
        }
        watchdog.start();
      }
      error = new ConnectError("the server has ended the stream", Code.Unavailable);
    } catch (reason) {
      error = watchdog.silent ? new ConnectError("the server has sent nothing for 45 seconds", Code.Unavailable) : ConnectError.from(reason);
    } finally {
      watchdog.end();
    }
    if (signal.aborted) {
      return;
    }
    if (isFinal(error)) {
      throw error;
    }
    const retryAfter = backoff.next();
    yield { lost: { error, retryAfter }, reset: false, notes: [], current: false };
    await pause(retryAfter, signal);
  }
}

/** Aborts a call that is silent for too long, or with the signal that ends following. */
class Watchdog {
  private readonly controller = new AbortController();
  private readonly abort = () => this.controller.abort();
  private timer: ReturnType<typeof setTimeout> | undefined;
  silent = false;

  constructor(
    private readonly parent: AbortSignal,
    private readonly timeout: number,
  ) {
    parent.addEventListener("abort", this.abort);
    this.start();
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  start(): void {
    this.stop();
    this.timer = setTimeout(() => {
      this.silent = true;
      this.abort();
    }, this.timeout);
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  end(): void {
    this.stop();
    this.parent.removeEventListener("abort", this.abort);
  }
}

/** Locations in a generation of positions. */
const maxRecent = 1 << 16;

/**
 * A cache of the last position heard at each location, in two generations: when the recent one is full, the older one is
 * dropped.
 */
class Positions {
  private recent = new Map<string, bigint>();
  private older = new Map<string, bigint>();

  /** Records the position of a note, and returns false if the note has come before. */
  advance(note: Note): boolean {
    const key = locationKey(note.location ?? { latitude: 0, longitude: 0 });
    const last = this.recent.get(key) ?? this.older.get(key);
    if (last !== undefined && note.position <= last) {
      return false;
    }
    if (this.recent.size >= maxRecent) {
      this.older = this.recent;
      this.recent = new Map();
    }
    this.recent.set(key, note.position);
    return true;
  }

  clear(): void {
    this.recent.clear();
    this.older.clear();
  }
}
