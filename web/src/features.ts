// The features of the view, drawn on a canvas.
import { type Client, ConnectError } from "@connectrpc/connect";
import * as L from "leaflet";
import { type Area, askable, covers, everywhere, includes, padded, rectangleOf, sizeRatio } from "./area";
import { Backoff, wait } from "./backoff";
import { isFinal } from "./follow";
import type { RouteGuide } from "./gen/routeguide/route_guide_pb";
import { type Location, locationKey, nearestCopy, nearestTo } from "./location";
import { viewOf } from "./map";
import { summary } from "./text";

/** Features that are drawn at most: of a view with more, these are some. */
const maxFeatures = 5000;

/** Pixels around a feature within which a click means it. */
const clickTolerance = matchMedia("(pointer: coarse)").matches ? 14 : 5;

export interface NamedPlace {
  readonly name: string;
  readonly location: Location;
}

interface Drawn extends NamedPlace {
  /** One in each copy of the world that is in view. */
  circles: readonly L.CircleMarker[];
  /** The call of ListFeatures that it was last in. */
  listing: number;
}

export interface FeaturesOptions {
  readonly onClick: (location: Location, event: MouseEvent) => void;
  /** Features came, or the view has others. */
  readonly onChange: () => void;
  /** All features of the first view are drawn. */
  readonly onDrawn: () => void;
  /** The first view has no features. Returns whether the map will show another one, which is then the first. */
  readonly onNone: () => boolean;
  readonly onError: (error: ConnectError) => void;
}

/** Lists the features of the view, with some around it, and again when the view leaves what was listed. */
export class Features {
  private readonly byKey = new Map<string, Drawn>();
  private readonly byLayer = new WeakMap<L.Layer, NamedPlace>();
  private readonly renderer = L.canvas({ padding: 0.25, tolerance: clickTolerance });
  private readonly layer = L.featureGroup();
  private listed: Area | undefined;
  /** Copies of each feature on either side of the nearest one: the map may be wider than the world. */
  private extraCopies = 0;
  private isComplete = true;
  private isFirst = true;
  private listing = 0;
  private stop = new AbortController();

  constructor(
    private readonly map: L.Map,
    private readonly client: Client<typeof RouteGuide>,
    private readonly options: FeaturesOptions,
  ) {
    this.layer.bindTooltip((layer) => this.tooltip(layer), { sticky: true, direction: "top", offset: [0, -6] });
    this.layer.on("click", (event: L.LeafletMouseEvent) => {
      const feature = this.byLayer.get(event.propagatedFrom as L.Layer);
      if (feature) {
        this.options.onClick(feature.location, event.originalEvent);
      }
    });
    this.layer.addTo(map);
    this.extraCopies = this.wantedCopies();
    map.on("moveend", () => this.moved());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.layer.setStyle(circleStyle()));
  }

  /** The name of the feature exactly at a location. */
  nameAt(location: Location): string {
    return this.byKey.get(locationKey(location))?.name ?? "";
  }

  /** The features in an area, at most as many as the limit. */
  within(area: Area, limit: number): NamedPlace[] {
    const found: NamedPlace[] = [];
    for (const feature of this.byKey.values()) {
      if (found.length >= limit) {
        break;
      }
      if (includes(area, feature.location)) {
        found.push(feature);
      }
    }
    return found;
  }

  /** The features in view that are nearest to the centre of the map, the nearest first. */
  nearest(limit: number): NamedPlace[] {
    const { lat, lng } = this.map.getCenter();
    return nearestTo({ latitude: lat, longitude: lng }, this.within(viewOf(this.map), Infinity), limit);
  }

  /** The bounds of the server's features, or of some if there are very many; undefined if there are none. */
  async extent(): Promise<L.LatLngBounds | undefined> {
    const end = new AbortController();
    const bounds = L.latLngBounds([]);
    let count = 0;
    for await (const { location } of this.client.listFeatures(rectangleOf(everywhere), { signal: end.signal })) {
      bounds.extend([(location?.latitude ?? 0) / 1e7, (location?.longitude ?? 0) / 1e7]);
      if (++count >= maxFeatures) {
        end.abort();
        break;
      }
    }
    return bounds.isValid() ? bounds : undefined;
  }

  /** The names that a mouse shows: a finger leaves them behind. */
  closeTooltip(): void {
    this.layer.closeTooltip();
  }

  /** Lists the features of a view, unless they are listed. */
  show(view: Area): void {
    if (this.listed && covers(this.listed, view) && (this.isComplete || sizeRatio(this.listed, view) < 4)) {
      return;
    }
    this.stop.abort();
    this.stop = new AbortController();
    this.listed = askable(padded(view, 0.25));
    void this.list(this.listed, this.stop.signal);
  }

  private async list(area: Area, signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      try {
        await this.read(area, signal);
        return;
      } catch (reason) {
        if (signal.aborted) {
          return;
        }
        const error = ConnectError.from(reason);
        this.options.onError(error);
        if (isFinal(error)) {
          this.listed = undefined; // The next view, or token, may be another matter.
          return;
        }
      }
      await wait(backoff.next(), signal);
    }
  }

  private async read(area: Area, signal: AbortSignal): Promise<void> {
    const end = new AbortController();
    const listing = ++this.listing;
    let count = 0;
    for await (const feature of this.client.listFeatures(rectangleOf(area), { signal: AbortSignal.any([signal, end.signal]) })) {
      if (signal.aborted) {
        return;
      }
      this.add({ name: feature.name, location: feature.location ?? { latitude: 0, longitude: 0 } }, listing);
      if (++count >= maxFeatures) {
        end.abort(); // Otherwise the stream keeps its connection.
        break;
      }
    }
    this.isComplete = count < maxFeatures;
    for (const [key, feature] of this.byKey) {
      if (feature.listing !== listing) {
        this.removeCircles(feature);
        this.byKey.delete(key);
      }
    }
    this.changed();
    if (this.isFirst && !(count === 0 && this.options.onNone())) {
      this.isFirst = false;
      requestAnimationFrame(() => setTimeout(this.options.onDrawn)); // After the frame that draws them.
    }
  }

  private add(feature: NamedPlace, listing: number): void {
    const key = locationKey(feature.location);
    const known = this.byKey.get(key);
    if (known) {
      known.listing = listing;
      return;
    }
    const drawn: Drawn = { ...feature, circles: [], listing };
    this.byKey.set(key, drawn);
    this.addCircles(drawn);
  }

  private addCircles(feature: Drawn): void {
    const style = { renderer: this.renderer, bubblingMouseEvents: false, ...circleStyle() };
    feature.circles = this.positionsOf(feature).map((at) => {
      const circle = L.circleMarker(at, style);
      this.byLayer.set(circle, feature);
      this.layer.addLayer(circle);
      return circle;
    });
  }

  private wantedCopies(): number {
    const { west, east } = viewOf(this.map);
    return Math.max(0, Math.ceil((east - west) / 720 - 0.5));
  }

  private removeCircles(feature: Drawn): void {
    for (const circle of feature.circles) {
      this.layer.removeLayer(circle);
    }
  }

  private positionsOf({ location }: NamedPlace): L.LatLngExpression[] {
    const nearest = nearestCopy(location.longitude / 1e7, this.map.getCenter().lng);
    return Array.from({ length: 1 + 2 * this.extraCopies }, (_, i) => [location.latitude / 1e7, nearest + 360 * (i - this.extraCopies)]);
  }

  private tooltip(layer: L.Layer): HTMLElement {
    const element = document.createElement("span");
    element.dir = "auto";
    element.textContent = summary(this.byLayer.get(layer)?.name ?? "", 200);
    return element;
  }

  /** Moves the features to the copies of the world that are in view. */
  private moved(): void {
    const extraCopies = this.wantedCopies();
    if (extraCopies !== this.extraCopies) {
      this.extraCopies = extraCopies;
      for (const feature of this.byKey.values()) {
        this.removeCircles(feature);
        this.addCircles(feature);
      }
    }
    for (const feature of this.byKey.values()) {
      for (const [i, at] of this.positionsOf(feature).entries()) {
        const circle = feature.circles[i];
        if (circle && !circle.getLatLng().equals(at, 0)) {
          circle.setLatLng(at);
        }
      }
    }
    this.changed();
  }

  private changed(): void {
    this.map.getContainer().dataset["features"] = String(this.within(viewOf(this.map), Infinity).length);
    this.options.onChange();
  }
}

function circleStyle(): L.CircleMarkerOptions {
  const style = getComputedStyle(document.documentElement);
  return { radius: 3.5, weight: 1, color: style.getPropertyValue("--feature-edge"), fillColor: style.getPropertyValue("--feature"), fillOpacity: 0.9 };
}
