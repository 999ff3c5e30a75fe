// The panel of a place: its log, and the form that leaves a note there.
import type { ConnectError } from "@connectrpc/connect";
import { type Draft, type Drafts, isBlank } from "./drafts";
import type { FollowNotes } from "./follow";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { itemOf } from "./list";
import { formatLocation, isSamePlace, type Location } from "./location";
import { Log } from "./log";
import { byId } from "./page";
import type { Place } from "./places";

/** Places in the list of those that the map shows as one. */
const maxAmong = 100;

export interface PanelOptions {
  readonly call: FollowNotes;
  readonly drafts: Drafts;
  /** The name of the feature at a location, or an empty text. */
  readonly nameAt: (location: Location) => string;
  /** Whether the page's stream brings notes of a location. */
  readonly isFollowed: (location: Location) => boolean;
  readonly onOpen: (location: Location) => void;
  readonly onClose: () => void;
  readonly onError: (error: ConnectError) => void;
}

export class Panel {
  private readonly element = byId("panel");
  private readonly heading = byId("place");
  private readonly degrees = byId("degrees");
  private readonly among = byId("among");
  private readonly list = byId("log");
  private readonly state = byId("log-state");
  private readonly more = byId("more", HTMLButtonElement);
  private readonly text = byId("text", HTMLTextAreaElement);
  private readonly send = byId("send", HTMLButtonElement);
  private readonly cancel = byId("cancel", HTMLButtonElement);
  private readonly leaving = byId("leaving");
  private log: Log | undefined;
  private draft: Draft | undefined;
  private isReading = false;
  /** What had the focus before the panel, and the place that it stands for in a list, whose entries are replaced. */
  private returnTo: { readonly element: Element; readonly place: string | undefined } | undefined;

  constructor(private readonly options: PanelOptions) {
    byId("close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      // The field of the token has an Escape of its own, as an input method has.
      if (event.key === "Escape" && !this.element.hidden && !event.isComposing && !event.defaultPrevented && !byId("token").contains(document.activeElement)) {
        this.close();
      }
    });
    this.cancel.addEventListener("click", () => {
      if (this.draft) {
        this.options.drafts.cancel(this.draft);
      }
    });
    this.more.addEventListener("click", () => this.log?.readMore());
    this.text.addEventListener("input", () => {
      if (this.draft) {
        this.options.drafts.write(this.draft, this.text.value);
        this.showDraft(this.draft);
      }
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        byId("leave", HTMLFormElement).requestSubmit();
      }
    });
    byId("leave").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.draft) {
        this.options.drafts.write(this.draft, this.text.value);
        void this.options.drafts.leave(this.draft);
      }
    });
  }

  get location(): Location | undefined {
    return this.log?.location;
  }

  /**
   * Opens a place. HasNotes says whether its log is worth reading first: if not, the focus is on the form. Among are the places that are
   * so near to it that the map shows them as one.
   */
  open(location: Location, hasNotes: boolean, among: readonly Place[] = []): void {
    const active = document.activeElement;
    if (active instanceof HTMLElement && active !== document.body && !this.element.contains(active)) {
      this.returnTo = { element: active, place: active.dataset["place"] };
    }
    this.leaveDraft();
    this.log?.close();
    this.draft = this.options.drafts.at(location);
    this.element.hidden = false;
    this.element.scrollTop = 0;
    this.showName(location);
    this.showAmong(among);
    this.isReading = true;
    const log = new Log(location, this.list, this.more, {
      call: this.options.call,
      onState: (text) => {
        if (log === this.log) {
          this.isReading = text !== "";
          this.showState(text);
        }
      },
      onError: this.options.onError,
    });
    this.log = log;
    void log.read();
    this.showDraft(this.draft, true);
    this.options.onOpen(location);
    const target = hasNotes ? this.heading : this.text;
    target.focus({ preventScroll: true });
    if (target === document.activeElement) {
      this.element.scrollIntoView({ block: "nearest" }); // In a low window, the card and the panel scroll together.
      target.scrollIntoView({ block: "nearest" });
    }
  }

  close(): void {
    this.leaveDraft();
    this.log?.close();
    this.log = undefined;
    this.draft = undefined;
    const hadFocus = this.element.contains(document.activeElement) || document.activeElement === document.body;
    this.element.hidden = true;
    this.options.onClose();
    if (hadFocus) {
      this.returnFocus();
    }
  }

  /** Takes a note that the page's stream has brought. */
  hear(note: Note, live: boolean): void {
    if (this.log && isSamePlace(note.location, this.log.location)) {
      this.log.add(note, live);
      if (!this.isReading) {
        this.showState("");
      }
    }
  }

  /** Forgets the log: what the server has now comes by refresh. */
  reset(): void {
    this.log?.clear();
  }

  /** Reads the log again: notes may have been missed, or deleted. */
  refresh(): void {
    if (this.log) {
      void this.log.read();
    }
  }

  /** The area that is followed has changed. */
  followedChanged(): void {
    if (!this.isReading) {
      this.showState("");
    }
  }

  /** The features have changed. */
  featuresChanged(): void {
    if (this.log) {
      this.showName(this.log.location);
    }
  }

  /** A draft has changed by itself. */
  draftChanged(draft: Draft): void {
    if (draft === this.draft) {
      this.showDraft(draft, draft.text === "");
    }
  }

  private returnFocus(): void {
    const { element, place } = this.returnTo ?? {};
    const entry = place === undefined ? null : document.querySelector(`#list [data-place="${place}"]`);
    const target = [element, entry].find((candidate) => candidate instanceof HTMLElement && candidate.checkVisibility());
    (target instanceof HTMLElement ? target : byId("map")).focus({ preventScroll: true });
  }

  private leaveDraft(): void {
    if (this.draft) {
      this.options.drafts.forget(this.draft);
    }
  }

  private showName(location: Location): void {
    const name = this.options.nameAt(location);
    this.heading.textContent = name || formatLocation(location);
    this.degrees.textContent = name ? formatLocation(location) : "";
  }

  private showAmong(among: readonly Place[]): void {
    this.among.hidden = among.length === 0;
    const open = (location: Location) => this.open(location, true, among);
    this.among.querySelector("ul")?.replaceChildren(
      ...among.slice(0, maxAmong).map(({ location, newest }) => itemOf({ location, text: newest.text }, open)),
    );
  }

  private showState(text: string): void {
    const remarks = [text];
    if (text === "" && this.log) {
      if (this.log.isEmpty && !this.isReading) {
        remarks.push("No notes here yet.");
      }
      if (!this.options.isFollowed(this.log.location)) {
        remarks.push("New notes at this place are not shown: the page does not follow it.");
      }
    }
    this.state.textContent = remarks.filter((remark) => remark !== "").join(" ");
  }

  private showDraft(draft: Draft, withText = false): void {
    if (withText) {
      this.text.value = draft.text;
    }
    this.text.setCustomValidity(draft.text !== "" && isBlank(draft.text) ? "The note has no text yet." : "");
    this.text.readOnly = draft.isLeaving;
    this.send.setAttribute("aria-disabled", String(draft.isLeaving)); // A disabled button would lose the focus.
    const hadFocus = this.cancel === document.activeElement;
    this.cancel.hidden = !draft.isRetrying;
    if (hadFocus && this.cancel.hidden) {
      this.text.focus({ preventScroll: true });
    }
    this.leaving.textContent = draft.status;
  }
}
