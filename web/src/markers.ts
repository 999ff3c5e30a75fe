// The places with notes on the map: a marker each, or one for the places of a cell.
import * as L from "leaflet";
import { FlatMarker, iconOf } from "./flatmarker";
import { formatLocation, mercatorLatitude, nearestCopy } from "./location";
import { maxZoom } from "./map";
import { type Cell, newestTime, type Place, type Places } from "./places";
import { summary } from "./text";

/** Milliseconds for which a place is marked after a note has come. */
const arrivedTime = 2000;

/** Places that are drawn by themselves, up to which those with room get their newest text beside them. */
const maxCaptions = 60;

/** Pixels of a caption, and around a place. */
const captionWidth = 190;
const captionHeight = 26;

/** Places that are marked at the same time, up to which the marks move. */
const maxMoving = 20;

interface Drawn {
  readonly marker: L.Marker;
  readonly element: HTMLElement;
  readonly cell: Cell;
  readonly copy: number;
  readonly isCluster: boolean;
  version: number;
  arrived: number;
}

export interface MarkersOptions {
  readonly onPlace: (place: Place) => void;
  /** A cluster that no zoom level divides. */
  readonly onPlaces: (places: readonly Place[]) => void;
}

/** Draws the places in view. It does as much as there is in view, however many places there are. */
export class Markers {
  private readonly drawn = new Map<string, Drawn>();
  private frame = 0;
  private readonly layer = L.layerGroup();
  private marked = 0;

  constructor(
    private readonly map: L.Map,
    private readonly places: Places,
    private readonly options: MarkersOptions,
  ) {
    this.layer.addTo(map);
    map.on("moveend", () => {
      this.places.setZoom(map.getZoom());
      this.draw();
    });
    this.draw();
  }

  /** Draws with the next frame. */
  schedule(): void {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const bounds = this.map.getPixelBounds();
    const world = 256 * 2 ** this.map.getZoom();
    const min = bounds.min ?? L.point(0, 0);
    const max = bounds.max ?? L.point(0, 0);
    const kept = new Set<string>();
    const focused = document.activeElement;
    const cells = new Set<Cell>();
    let changed = false;
    for (const { cell, copy } of this.places.within(min.x / world, min.y / world, max.x / world, max.y / world)) {
      const key = `${cell.column},${cell.row},${copy},${this.map.getZoom()}`;
      cells.add(cell);
      kept.add(key);
      changed = this.drawCell(key, cell, copy) || changed;
    }
    for (const [key, drawn] of this.drawn) {
      if (!kept.has(key)) {
        this.remove(key, drawn);
        changed = true;
      }
    }
    if (changed) {
      this.caption();
    }
    if (focused instanceof HTMLElement && !focused.isConnected) {
      this.map.getContainer().focus({ preventScroll: true }); // A marker that has gone leaves its focus to the map.
    }
    this.map.getContainer().dataset["locations"] = String([...cells].reduce((sum, cell) => sum + cell.places.size, 0));
  }

  /** Returns whether anything changed. */
  private drawCell(key: string, cell: Cell, copy: number): boolean {
    let drawn = this.drawn.get(key);
    const isCluster = cell.places.size > 1;
    if (drawn && (drawn.isCluster !== isCluster || drawn.cell !== cell)) {
      this.remove(key, drawn);
      drawn = undefined;
    }
    if (drawn?.version === cell.version) {
      return false;
    }
    const at = this.positionOf(cell, copy);
    if (!drawn) {
      drawn = this.create(cell, copy, isCluster, at);
      this.drawn.set(key, drawn);
    } else {
      drawn.marker.setLatLng(at);
    }
    drawn.version = cell.version;
    this.describe(drawn);
    if (cell.arrived > drawn.arrived && performance.now() - cell.arrived < arrivedTime) {
      this.arrive(drawn);
    }
    return true;
  }

  /** A place is exactly where it is. A cluster is amid its places, but not so near to the edge of its cell that it covers the next one. */
  private positionOf(cell: Cell, copy: number): L.LatLngExpression {
    const [only] = cell.places;
    if (cell.places.size === 1 && only) {
      return [only.location.latitude / 1e7, only.location.longitude / 1e7 + 360 * copy];
    }
    const share = this.places.cellShare;
    const clamp = (sum: number, index: number) =>
      Math.max(index + 0.35, Math.min(index + 0.65, sum / cell.places.size / share)) * share;
    return [mercatorLatitude(clamp(cell.y, cell.row)), (clamp(cell.x, cell.column) - 0.5 + copy) * 360];
  }

  private create(cell: Cell, copy: number, isCluster: boolean, at: L.LatLngExpression): Drawn {
    const content = document.createElement("span");
    content.className = isCluster ? "count" : "caption";
    content.dir = "auto";
    const icon = iconOf(isCluster ? "cluster" : "place", content);
    const marker = new FlatMarker(at, { icon, keyboard: true, autoPanOnFocus: false, bubblingMouseEvents: false });
    this.layer.addLayer(marker);
    const element = marker.getElement();
    if (!element) {
      throw new Error("a marker of the map has no element");
    }
    const open = () => (isCluster ? this.openCluster(cell) : this.openPlace(cell));
    marker.on("click", open);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        event.stopPropagation();
        open();
      }
    });
    return { marker, element, cell, copy, isCluster, version: 0, arrived: 0 };
  }

  private describe({ cell, element, isCluster }: Drawn): void {
    const content = element.firstElementChild;
    const [place] = cell.places;
    if (!content || !place) {
      return;
    }
    if (isCluster) {
      const count = cell.places.size;
      element.dataset["locations"] = String(count);
      element.dataset["size"] = count < 10 ? "small" : count < 100 ? "medium" : "large";
      content.textContent = count < 1000 ? String(count) : count < 10_000 ? `${Math.floor(count / 100) / 10}k` : `${Math.floor(count / 1000)}k`;
      element.setAttribute("aria-label", `${count} places with notes`);
      return;
    }
    element.dataset["latitude"] = String(place.location.latitude);
    element.dataset["longitude"] = String(place.location.longitude);
    content.textContent = summary(place.newest.text, 80);
    element.setAttribute("aria-label", `${summary(place.newest.text, 80)} – note at ${formatLocation(place.location)}`);
  }

  /** Marks a place or a cluster for two seconds. */
  private arrive(drawn: Drawn): void {
    const isMarked = drawn.arrived > 0;
    drawn.arrived = drawn.cell.arrived;
    if (isMarked) {
      return;
    }
    drawn.element.classList.add("arrived");
    this.setMarked(this.marked + 1);
    const unmark = () => {
      const rest = drawn.arrived + arrivedTime - performance.now();
      if (rest > 0 && drawn.element.isConnected) {
        setTimeout(unmark, rest);
        return;
      }
      drawn.arrived = 0;
      drawn.element.classList.remove("arrived");
      this.setMarked(this.marked - 1);
    };
    setTimeout(unmark, arrivedTime);
  }

  private setMarked(marked: number): void {
    this.marked = marked;
    this.map.getContainer().classList.toggle("busy", marked > maxMoving);
  }

  /** Shows the newest text beside the places that have room for it. */
  private caption(): void {
    const singles = [...this.drawn.values()].filter(({ isCluster }) => !isCluster);
    const taken: { x: number; y: number; width: number; height: number }[] = [];
    const free = (x: number, y: number, width: number, height: number) =>
      taken.every((other) => x + width < other.x || other.x + other.width < x || y + height < other.y || other.y + other.height < y);
    if (singles.length <= maxCaptions) {
      for (const { marker } of this.drawn.values()) {
        const { x, y } = this.map.latLngToLayerPoint(marker.getLatLng());
        taken.push({ x: x - 8, y: y - 8, width: 16, height: 16 });
      }
    }
    singles.sort((a, b) => newestOf(b) - newestOf(a));
    const right = this.map.containerPointToLayerPoint(this.map.getSize()).x;
    for (const { marker, element } of singles) {
      const { x, y } = this.map.latLngToLayerPoint(marker.getLatLng());
      const width = Math.min(captionWidth, 20 + 7.5 * (element.textContent?.length ?? 0));
      const top = y - captionHeight / 2;
      const starts = singles.length <= maxCaptions ? [x + 10, x - 10 - width] : [];
      const start = starts.find((left) => left + width < right && free(left, top, width, captionHeight));
      element.classList.toggle("captioned", start !== undefined);
      element.classList.toggle("left", start !== undefined ? start < x : x + 10 + width > right);
      if (start !== undefined) {
        taken.push({ x: start, y: top, width, height: captionHeight });
      }
    }
  }

  private remove(key: string, drawn: Drawn): void {
    this.layer.removeLayer(drawn.marker);
    this.drawn.delete(key);
  }

  private openPlace(cell: Cell): void {
    const [place] = cell.places;
    if (place) {
      this.options.onPlace(place);
    }
  }

  private openCluster(cell: Cell): void {
    const places = [...cell.places];
    const bounds = L.latLngBounds(places.map(({ location }) => [location.latitude / 1e7, location.longitude / 1e7]));
    if (this.map.getZoom() >= maxZoom || bounds.getSouthWest().equals(bounds.getNorthEast(), 1e-6)) {
      this.options.onPlaces(places);
      return;
    }
    const zoom = Math.max(this.map.getZoom() + 1, Math.min(maxZoom, this.map.getBoundsZoom(bounds.pad(0.2))));
    const centre = bounds.getCenter();
    centre.lng = nearestCopy(centre.lng, this.map.getCenter().lng);
    this.map.setView(centre, zoom);
  }
}

function newestOf({ cell }: Drawn): number {
  const [place] = cell.places;
  return place ? newestTime(place) : 0;
}
