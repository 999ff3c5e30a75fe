// The log of one place: read once, and kept up to date by the page's stream.
import { ConnectError } from "@connectrpc/connect";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { follow, type FollowNotes } from "./follow";
import { wordsOf } from "./connection";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import type { Location } from "./location";
import { textElement } from "./text";

/** Notes that are read at first, and on demand: the most that FollowNotes begins with. */
const firstNotes = 100;
const maxNotes = 1000;

/** Milliseconds of reading after which the page says so. */
const patience = 400;

const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export interface LogOptions {
  readonly call: FollowNotes;
  /** Says in words how reading goes on; empty once it is done. */
  readonly onState: (text: string) => void;
  readonly onError: (error: ConnectError) => void;
}

/** The notes of a location in a list, newest first. */
export class Log {
  private readonly items = new Map<bigint, HTMLElement>();
  /** Positions, in ascending order. */
  private positions: bigint[] = [];
  private limit = firstNotes;
  private reading = new AbortController();

  constructor(
    readonly location: Location,
    private readonly list: HTMLElement,
    private readonly more: HTMLElement,
    private readonly options: LogOptions,
  ) {
    list.replaceChildren();
    more.hidden = true;
  }

  get isEmpty(): boolean {
    return this.positions.length === 0;
  }

  /** Adds a note where its position belongs. */
  add(note: Note, arrived: boolean): void {
    if (this.items.has(note.position)) {
      return;
    }
    let index = this.positions.length;
    while (index > 0 && this.positions[index - 1]! > note.position) {
      index--;
    }
    const older = index > 0 ? this.items.get(this.positions[index - 1]!) : undefined;
    const item = itemOf(note);
    item.classList.toggle("arrived", arrived);
    this.list.insertBefore(item, older ?? null);
    this.items.set(note.position, item);
    this.positions.splice(index, 0, note.position);
    if (this.positions.length > maxNotes) {
      this.remove(this.positions[0]!);
    }
  }

  /** Reads the newest notes, and forgets those that the server no longer has. */
  async read(): Promise<void> {
    this.reading.abort();
    const reading = new AbortController();
    this.reading = reading;
    const { call, onState, onError } = this.options;
    const found = new Set<bigint>();
    const slow = setTimeout(() => onState("Reading the notes…"), patience);
    try {
      const filter = { filter: { case: "location" as const, value: this.location }, newest: this.limit };
      for await (const event of follow(call, filter, { signal: reading.signal })) {
        if (event.lost) {
          clearTimeout(slow);
          onState(`The notes cannot be read: ${wordsOf(event.lost.error)}. Trying again…`);
          continue;
        }
        if (event.reset) {
          found.clear();
        }
        for (const note of event.notes) {
          found.add(note.position);
          this.add(note, false);
        }
        if (event.current) {
          this.keep(found);
          onState("");
          break;
        }
      }
    } catch (error) {
      if (!reading.signal.aborted) {
        onState(`The notes cannot be read: ${wordsOf(ConnectError.from(error))}`);
        onError(ConnectError.from(error));
      }
    } finally {
      clearTimeout(slow);
      reading.abort(); // Frees the connection.
    }
  }

  /** Reads further back. */
  readMore(): void {
    this.limit = maxNotes;
    void this.read();
  }

  /** Forgets all notes. */
  clear(): void {
    this.list.replaceChildren();
    this.items.clear();
    this.positions = [];
  }

  close(): void {
    this.reading.abort();
  }

  private keep(found: ReadonlySet<bigint>): void {
    const newest = [...found].reduce((a, b) => (a > b ? a : b), 0n);
    for (const position of [...this.positions]) {
      if (position <= newest && !found.has(position)) {
        this.remove(position);
      }
    }
    this.more.hidden = found.size < this.limit || this.limit >= maxNotes;
  }

  private remove(position: bigint): void {
    this.items.get(position)?.remove();
    this.items.delete(position);
    this.positions = this.positions.filter((other) => other !== position);
  }
}

function itemOf(note: Note): HTMLElement {
  const item = document.createElement("li");
  item.dataset["position"] = String(note.position);
  item.append(textElement(note.text));
  if (note.leaveTime) {
    const date = timestampDate(note.leaveTime);
    const time = document.createElement("time");
    time.dateTime = date.toISOString();
    time.textContent = format.format(date);
    item.append(time);
  }
  return item;
}
