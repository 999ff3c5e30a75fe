// Texts that are not left yet, by location: a note that is on its way, or that could not be left, is not lost when another place is opened. Knows no page.
import { ConnectError } from "@connectrpc/connect";
import type { Wait } from "./backoff";
import { wordsOf } from "./connection";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { leave, type LeaveNote, newId } from "./leave";
import { type Location, locationKey } from "./location";

/** A text that is written or left at a location. */
export interface Draft {
  readonly location: Location;
  text: string;
  /** The ids of texts that were sent, and may have been left. The same text is sent again with the same id: the server keeps it once. */
  readonly sent: Map<string, string>;
  isLeaving: boolean;
  /** An attempt has failed: it can be cancelled. */
  isRetrying: boolean;
  /** How leaving goes on, in words. */
  status: string;
}

export interface DraftsOptions {
  readonly call: LeaveNote;
  /** A draft has changed by itself. */
  readonly onChange: (draft: Draft) => void;
  readonly onLeft: (note: Note, draft: Draft) => void;
  readonly onError: (error: ConnectError) => void;
  readonly wait?: Wait;
}

export class Drafts {
  private readonly byKey = new Map<string, Draft>();
  private readonly stops = new Map<Draft, AbortController>();

  constructor(private readonly options: DraftsOptions) {}

  /** The drafts whose texts have not been left. */
  get unsaved(): Draft[] {
    return [...this.byKey.values()].filter(({ text, isLeaving }) => text !== "" || isLeaving);
  }

  at(location: Location): Draft {
    const key = locationKey(location);
    let draft = this.byKey.get(key);
    if (!draft) {
      draft = { location, text: "", sent: new Map(), isLeaving: false, isRetrying: false, status: "" };
      this.byKey.set(key, draft);
    }
    return draft;
  }

  write(draft: Draft, text: string): void {
    if (text !== draft.text) {
      draft.text = text;
      draft.status = "";
    }
  }

  /** Leaves the note, unless it is blank. The draft keeps its text until the server has the note. */
  async leave(draft: Draft): Promise<void> {
    if (draft.isLeaving || isBlank(draft.text)) {
      return;
    }
    const { location, text } = draft;
    const id = draft.sent.get(text) ?? newId(); // Another text is another note.
    draft.sent.set(text, id);
    const stop = new AbortController();
    this.stops.set(draft, stop);
    draft.isLeaving = true;
    this.change(draft, "Leaving the note…");
    try {
      const note = await leave(this.options.call, { location, text, id }, {
        signal: stop.signal,
        ...(this.options.wait && { wait: this.options.wait }),
        onRetry: (error) => {
          draft.isRetrying = true;
          this.change(draft, `Not left yet (${wordsOf(error)}). Trying again…`);
        },
      });
      this.end(draft);
      draft.text = "";
      draft.sent.delete(text);
      this.change(draft, "The note was left.");
      this.options.onLeft(note, draft);
    } catch (reason) {
      this.end(draft);
      if (stop.signal.aborted) {
        this.change(draft, "Cancelled. The note may have been left or not. If you leave the same text again, it is kept once at most.");
        return;
      }
      const error = ConnectError.from(reason);
      this.change(draft, `The note was not left: ${wordsOf(error)}`);
      this.options.onError(error);
    }
  }

  /** Stops leaving a note. It may have been left: the answer may be what was lost. */
  cancel(draft: Draft): void {
    this.stops.get(draft)?.abort();
  }

  /** Forgets a draft that is empty, and of which nothing may have been left. */
  forget(draft: Draft): void {
    if (draft.text === "" && !draft.isLeaving && draft.sent.size === 0) {
      this.byKey.delete(locationKey(draft.location));
    }
  }

  private end(draft: Draft): void {
    this.stops.delete(draft);
    draft.isLeaving = false;
    draft.isRetrying = false;
  }

  private change(draft: Draft, status: string): void {
    draft.status = status;
    this.options.onChange(draft);
  }
}

/** Whether a text has nothing but white space. Such a note says nothing; others are left as they were typed. */
export function isBlank(text: string): boolean {
  return text.trim() === "";
}
