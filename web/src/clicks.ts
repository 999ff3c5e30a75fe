// Clicks that mean a place, and those that are the halves of a double click, which zooms. Knows no page.
import type { Location } from "./location";

/** Milliseconds for which a click may become a double click. */
export const doubleClickTime = 250;

/** What a click's event says of it: those of a mouse know themselves which click of several they are. */
export interface Click {
  readonly detail: number;
  readonly pointerType?: string;
  /** Milliseconds. */
  readonly timeStamp: number;
}

export interface ClicksOptions {
  /** A click has come that may be the first half of a double click: it is to be seen, and does nothing else. */
  readonly onWait: (location: Location) => void;
  readonly onClick: (location: Location) => void;
  /** It was a double click: what its first half did is to be undone. Opened says whether onClick has been called, since the second half came late. */
  readonly onDouble: (opened: boolean) => void;
}

export class Clicks {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = -Infinity;
  private hasOpened = false;

  constructor(private readonly options: ClicksOptions) {}

  click(location: Location, { detail, pointerType, timeStamp }: Click): void {
    const isSecond = detail > 1 || (pointerType !== "mouse" && timeStamp - this.last < doubleClickTime);
    this.last = timeStamp;
    const opened = this.hasOpened;
    this.hasOpened = false;
    clearTimeout(this.timer);
    if (isSecond) {
      this.options.onDouble(opened);
      return;
    }
    this.options.onWait(location);
    this.timer = setTimeout(() => {
      this.hasOpened = true;
      this.options.onClick(location);
    }, doubleClickTime);
  }
}
