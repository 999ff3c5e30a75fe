// Texts that are not left yet, by location: a note that is on its way, or that could not be left, is not lost when another place is opened.
import { ConnectError } from "@connectrpc/connect";
import { wordsOf } from "./connection";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { leave, type LeaveNote, newId } from "./leave";
import { type Location, locationKey } from "./location";

/** A text that is written or left at a location. */
export interface Draft {
  readonly location: Location;
  text: string;
  /** The id of the note for as long as it has this text: a second try after an error does not leave it twice. */
  id: string;
  isLeaving: boolean;
  /** How leaving goes on, in words. */
  status: string;
}

export interface DraftsOptions {
  readonly call: LeaveNote;
  /** A draft has changed by itself. */
  readonly onChange: (draft: Draft) => void;
  readonly onLeft: (note: Note, draft: Draft) => void;
  readonly onError: (error: ConnectError) => void;
}

export class Drafts {
  private readonly byKey = new Map<string, Draft>();

  constructor(private readonly options: DraftsOptions) {
    window.addEventListener("beforeunload", (event) => {
      if ([...this.byKey.values()].some(({ text, isLeaving }) => text !== "" || isLeaving)) {
        event.preventDefault();
      }
    });
  }

  at(location: Location): Draft {
    const key = locationKey(location);
    let draft = this.byKey.get(key);
    if (!draft) {
      draft = { location, text: "", id: newId(), isLeaving: false, status: "" };
      this.byKey.set(key, draft);
    }
    return draft;
  }

  /** Another text is another note. */
  write(draft: Draft, text: string): void {
    if (text !== draft.text) {
      draft.text = text;
      draft.id = newId();
      draft.status = "";
    }
  }

  /** Leaves the note. The draft keeps its text until the server has the note. */
  async leave(draft: Draft): Promise<void> {
    if (draft.isLeaving) {
      return;
    }
    draft.isLeaving = true;
    this.change(draft, "Leaving the note…");
    try {
      const note = await leave(this.options.call, { location: draft.location, text: draft.text, id: draft.id }, {
        signal: new AbortController().signal, // Until it is left, or the page is closed.
        onRetry: (error) => this.change(draft, `Not left yet (${wordsOf(error)}). Trying again…`),
      });
      draft.isLeaving = false;
      draft.text = "";
      draft.id = newId();
      this.change(draft, "The note was left.");
      this.options.onLeft(note, draft);
    } catch (reason) {
      const error = ConnectError.from(reason);
      draft.isLeaving = false;
      this.change(draft, `The note was not left: ${wordsOf(error)}`);
      this.options.onError(error);
    }
  }

  /** Forgets a draft that is empty. */
  forget(draft: Draft): void {
    if (draft.text === "" && !draft.isLeaving) {
      this.byKey.delete(locationKey(draft.location));
    }
  }

  private change(draft: Draft, status: string): void {
    draft.status = status;
    this.options.onChange(draft);
  }
}
