// The features of the view, drawn on a canvas.
import { type Client, ConnectError } from "@connectrpc/connect";
import * as L from "leaflet";
import { type Area, askable, covers, includes, padded, rectangleOf, sizeRatio } from "./area";
import { Backoff, wait } from "./backoff";
import { isFinal } from "./follow";
import type { RouteGuide } from "./gen/routeguide/route_guide_pb";
import { type Location, locationKey, nearestCopy } from "./location";
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
  readonly circle: L.CircleMarker;
  /** The call of ListFeatures that it was last in. */
  listing: number;
}

export interface FeaturesOptions {
  readonly onOpen: (location: Location) => void;
  /** Features came, or the view has others. */
  readonly onChange: () => void;
  /** All features of the first view are drawn. */
  readonly onDrawn: () => void;
  readonly onError: (error: ConnectError) => void;
}

/** Lists the features of the view, with some around it, and again when the view leaves what was listed. */
export class Features {
  private readonly byKey = new Map<string, Drawn>();
  private readonly byLayer = new WeakMap<L.Layer, NamedPlace>();
  private readonly renderer = L.canvas({ padding: 0.25, tolerance: clickTolerance });
  private readonly layer = L.featureGroup();
  private listed: Area | undefined;
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
        this.options.onOpen(feature.location);
      }
    });
    this.layer.addTo(map);
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
        this.layer.removeLayer(feature.circle);
        this.byKey.delete(key);
      }
    }
    this.changed();
    if (this.isFirst) {
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
    const at = L.latLng(feature.location.latitude / 1e7, nearestCopy(feature.location.longitude / 1e7, this.map.getCenter().lng));
    const circle = L.circleMarker(at, { renderer: this.renderer, bubblingMouseEvents: false, ...circleStyle() });
    this.byKey.set(key, { ...feature, circle, listing });
    this.byLayer.set(circle, feature);
    this.layer.addLayer(circle);
  }

  private tooltip(layer: L.Layer): HTMLElement {
    const element = document.createElement("span");
    element.dir = "auto";
    element.textContent = summary(this.byLayer.get(layer)?.name ?? "", 200);
    return element;
  }

  /** Moves the features to the copy of the world that is in view. */
  private moved(): void {
    const meridian = this.map.getCenter().lng;
    for (const { circle } of this.byKey.values()) {
      const { lat, lng } = circle.getLatLng();
      const nearest = nearestCopy(lng, meridian);
      if (nearest !== lng) {
        circle.setLatLng([lat, nearest]);
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
