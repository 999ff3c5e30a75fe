// What is in view, as a list: for the keyboard, and for screen readers.
import { formatLocation, type Location, locationKey } from "./location";
import { byId } from "./page";
import { summary } from "./text";

/** Entries of each part. */
export const listLength = 40;

/** Milliseconds between two updates. */
const interval = 1000;

export interface Entry {
  readonly location: Location;
  readonly text: string;
}

export interface ListOptions {
  readonly features: () => readonly Entry[];
  readonly notes: () => readonly Entry[];
  readonly onOpen: (location: Location) => void;
}

/** A list that is made only while it is open. */
export class List {
  private readonly element = byId("list", HTMLDetailsElement);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = 0;

  constructor(private readonly options: ListOptions) {
    this.element.addEventListener("toggle", () => this.update());
  }

  /** What is in view has changed. */
  schedule(): void {
    if (this.element.open) {
      this.timer ??= setTimeout(() => this.update(), Math.max(0, this.last + interval - performance.now()));
    }
  }

  private update(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.last = performance.now();
    if (this.element.open) {
      this.fill(byId("list-notes"), this.options.notes(), "No notes in view.");
      this.fill(byId("list-features"), this.options.features(), "No features in view.");
    }
  }

  private fill(list: HTMLElement, entries: readonly Entry[], empty: string): void {
    const texts = entries.map(({ location, text }) => `${text}\n${formatLocation(location)}`);
    if (texts.length > 0 && list.dataset["shown"] === texts.join("\n")) {
      return; // The focus stays where it is.
    }
    list.dataset["shown"] = texts.join("\n");
    const active = document.activeElement;
    const focused = active instanceof HTMLElement && list.contains(active) ? active.dataset["place"] : undefined;
    list.replaceChildren(...entries.map((entry) => itemOf(entry, this.options.onOpen)));
    if (entries.length === 0) {
      list.append(Object.assign(document.createElement("li"), { textContent: empty, className: "remark" }));
    }
    if (focused !== undefined) {
      (list.querySelector<HTMLElement>(`[data-place="${focused}"]`) ?? list.querySelector("button"))?.focus();
    }
  }
}

/** An item of a list, with a button that opens a place. */
export function itemOf({ location, text }: Entry, onOpen: (location: Location) => void): HTMLElement {
  const button = document.createElement("button");
  button.type = "button";
  button.dir = "auto";
  button.textContent = summary(text, 80);
  button.title = formatLocation(location);
  button.dataset["place"] = locationKey(location);
  button.addEventListener("click", () => onOpen(location));
  const item = document.createElement("li");
  item.append(button);
  return item;
}
