// New notes for screen readers: one text a second at most, however many come.
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { formatLocation } from "./location";
import { byId } from "./page";
import { summary } from "./text";

/** Milliseconds between two texts. */
const interval = 1500;

export class Announcer {
  private readonly element = byId("announcements");
  private timer: ReturnType<typeof setTimeout> | undefined;
  private newest: Note | undefined;
  private count = 0;

  /** Announces a note that has come. */
  add(note: Note): void {
    this.newest = note;
    this.count++;
    this.timer ??= setTimeout(() => this.speak(), 100);
  }

  private speak(): void {
    if (!this.newest) {
      this.timer = undefined;
      return;
    }
    const where = formatLocation(this.newest.location ?? { latitude: 0, longitude: 0 });
    const text = summary(this.newest.text, 200);
    this.element.textContent = this.count === 1 ? `New note at ${where}: ${text}` : `${this.count} new notes, the last one at ${where}: ${text}`;
    this.newest = undefined;
    this.count = 0;
    this.timer = setTimeout(() => this.speak(), interval);
  }
}
