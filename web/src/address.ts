// The URL: it has the view and the open place, and the browser's history has an entry for the place, which Back closes.
import type * as L from "leaflet";
import { isSamePlace, type Location } from "./location";
import { setView } from "./map";
import { formatFragment, parsePlace, parseView } from "./view";

/** What the page keeps in an entry of the history. */
interface Entry {
  readonly id: number;
  /** The id of the entry that is below, if this one was added when a place was opened. */
  readonly below?: number;
}

export interface AddressOptions {
  /** The user went to another place, or to none, by the URL or the history. */
  readonly onPlace: (place: Location | undefined) => void;
}

export class Address {
  private entry: Entry;
  private place: Location | undefined;
  /** Whether the entry of the place that was closed is being left. */
  private isLeaving = false;

  constructor(
    private readonly map: L.Map,
    private readonly options: AddressOptions,
  ) {
    this.entry = entryOf(history.state) ?? { id: Math.random() };
    map.on("moveend", () => this.replace());
    window.addEventListener("popstate", () => this.follow());
    window.addEventListener("hashchange", () => this.follow());
  }

  /** Opens the place of the URL. */
  start(): void {
    this.place = parsePlace(location.hash);
    if (this.place) {
      this.options.onPlace(this.place);
    }
    history.replaceState(this.entry, ""); // The URL stays as it came until the map moves.
  }

  /** The page has opened another place, or closed it. */
  setPlace(place: Location | undefined): void {
    if (isSamePlace(place, this.place)) {
      return;
    }
    const wasOpen = this.place !== undefined;
    this.place = place;
    if (this.isLeaving) {
      return; // Until the history is there.
    }
    if (place && !wasOpen) {
      this.push();
    } else if (!place && this.entry.below !== undefined) {
      this.isLeaving = true;
      history.back();
    } else {
      this.replace();
    }
  }

  private push(): void {
    this.entry = { id: Math.random(), below: this.entry.id };
    history.pushState(this.entry, "", this.fragment(this.place));
  }

  private replace(): void {
    const fragment = this.fragment(this.place);
    if (!this.isLeaving && (fragment !== location.hash || entryOf(history.state) === undefined)) {
      history.replaceState(this.entry, "", fragment);
    }
  }

  private fragment(place: Location | undefined): string {
    const { lat, lng } = this.map.getCenter();
    return formatFragment({ zoom: this.map.getZoom(), latitude: lat, longitude: lng }, place);
  }

  /** Shows what the URL says after the user has edited it, or has gone back or forward. */
  private follow(): void {
    const from = this.entry;
    const to = entryOf(history.state) ?? { id: Math.random() };
    if (to.id === from.id) {
      return;
    }
    this.entry = to;
    if (this.isLeaving) {
      this.isLeaving = false;
      history.replaceState(this.entry, "", this.fragment(undefined));
      if (this.place) {
        this.push(); // It was opened meanwhile.
      }
      return;
    }
    this.place = parsePlace(location.hash);
    const view = parseView(location.hash);
    // Back from a place closes it, and leaves the map where it has been moved to since.
    if (view && from.below !== to.id && to.below !== from.id) {
      setView(this.map, view);
    }
    this.options.onPlace(this.place);
    history.replaceState(this.entry, "", this.fragment(this.place));
  }
}

/** The state of an entry of the history, if the page has made it. */
function entryOf(state: unknown): Entry | undefined {
  return typeof state === "object" && state !== null && "id" in state && typeof state.id === "number" ? (state as Entry) : undefined;
}
