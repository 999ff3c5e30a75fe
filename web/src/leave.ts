// Leaving a note, once, however often the connection breaks. Knows no page.
import { Code, ConnectError, type CallOptions } from "@connectrpc/connect";
import { Backoff, wait, type Wait } from "./backoff";
import type { LeaveNoteResponse, Note } from "./gen/routeguide/v1/note_service_pb";
import type { Location } from "./location";

/** Milliseconds after which an attempt counts as lost. A repetition does not leave the note twice. */
const attemptTimeout = 20_000;

/** The codes of a server, or of a connection to it, that may be another one later. */
const retryableCodes: readonly Code[] = [
  Code.Unavailable, Code.Unknown, Code.ResourceExhausted, Code.Aborted, Code.Internal, Code.Canceled, Code.DeadlineExceeded,
];

export interface NewNote {
  readonly location: Location;
  readonly text: string;
  /** By which the server knows a repeated call: see {@link newId}. */
  readonly id: string;
}

/** LeaveNote of a client of NoteService. */
export type LeaveNote = (request: NewNote, options: CallOptions & { signal: AbortSignal }) => Promise<LeaveNoteResponse>;

export interface LeaveOptions {
  readonly signal: AbortSignal;
  /** Is told of each attempt that failed and will be repeated. */
  readonly onRetry?: (error: ConnectError) => void;
  readonly random?: () => number;
  readonly wait?: Wait;
}

/** A random id of 128 bits. Unlike crypto.randomUUID, it needs no secure context: pages in clear leave notes, too. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Leaves a note, and returns it as it was kept. It calls LeaveNote with the note's id until the server has answered, with
 * exponential backoff and full jitter. It throws the error that no retry can mend, and CANCELED when the signal aborts:
 * then the note may have been left.
 */
export async function leave(call: LeaveNote, note: NewNote, options: LeaveOptions): Promise<Note> {
  const backoff = new Backoff(options.random);
  const pause = options.wait ?? wait;
  while (!options.signal.aborted) {
    try {
      const response = await call(note, { signal: options.signal, timeoutMs: attemptTimeout });
      if (response.note) {
        return response.note;
      }
      throw new ConnectError("the response has no note", Code.Internal);
    } catch (reason) {
      const error = ConnectError.from(reason);
      if (options.signal.aborted || !retryableCodes.includes(error.code)) {
        throw error;
      }
      options.onRetry?.(error);
    }
    await pause(backoff.next(), options.signal);
  }
  throw new ConnectError("leaving the note was canceled", Code.Canceled);
}
