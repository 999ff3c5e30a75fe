// Names on the base map: of countries, states, counties and features. Text that the map's tiles do not cut.
import * as L from "leaflet";
import type { Label } from "./basemap";
import { FlatMarker, iconOf } from "./flatmarker";
import { copiesWithin } from "./location";
import { summary } from "./text";

/** Names in view. */
export const maxLabels = 60;

/** The zoom levels at which each kind of name is shown. */
const zooms = { feature: [11, 19], union: [2, 3], country: [2, 6], state: [4, 9], county: [8, 13] } as const;

/** Pixels of a character, about, and of a line. */
const characterWidth = { feature: 6.5, union: 8, country: 8, state: 8, county: 6 } as const;
const lineHeight = 18;

/** Pixels from a feature to the middle of its name. */
const featureOffset = 13;

interface Feature {
  readonly name: string;
  readonly location: { readonly latitude: number; readonly longitude: number };
}

/** Draws the names that have room in the view. */
export class Labels {
  private readonly layer = L.layerGroup();
  private areas: readonly Label[] = [];
  private features: readonly Feature[] = [];
  private frame = 0;

  constructor(private readonly map: L.Map) {
    const pane = map.createPane("labels");
    pane.setAttribute("aria-hidden", "true");
    this.layer.addTo(map);
    map.on("moveend", () => this.schedule());
  }

  /** The names of the base map. */
  setAreas(labels: readonly Label[]): void {
    this.areas = labels;
    this.schedule();
  }

  /** The features in view. */
  setFeatures(features: readonly Feature[]): void {
    this.features = features;
    this.schedule();
  }

  private schedule(): void {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    this.frame = 0;
    this.layer.clearLayers();
    const zoom = this.map.getZoom();
    const bounds = this.map.getBounds();
    const degree = (256 * 2 ** zoom) / 360; // pixels of a degree of longitude
    const taken: { x: number; y: number; width: number }[] = [];
    /** Draws a name if it has room there. */
    const putAt = (kind: keyof typeof zooms, name: string, at: L.LatLng, room: number) => {
      const width = name.length * characterWidth[kind];
      const [from, to] = zooms[kind];
      if (zoom < from || zoom > to || width > room || taken.length >= maxLabels) {
        return;
      }
      const { x, y } = this.map.latLngToLayerPoint(at).add([0, kind === "feature" ? featureOffset : 0]);
      if (taken.some((other) => Math.abs(other.x - x) < (other.width + width) / 2 + 6 && Math.abs(other.y - y) < lineHeight)) {
        return;
      }
      taken.push({ x, y, width });
      const text = document.createElement("span");
      text.textContent = name;
      text.dir = "auto";
      const icon = iconOf(`label ${kind}`, text);
      this.layer.addLayer(new FlatMarker(at, { icon, interactive: false, keyboard: false, pane: "labels" }));
    };
    /** Draws a name in each copy of the world that is in view. */
    const put = (kind: keyof typeof zooms, name: string, latitude: number, longitude: number, room: number) => {
      if (latitude >= bounds.getSouth() && latitude <= bounds.getNorth()) {
        for (const copy of copiesWithin(longitude, bounds.getWest(), bounds.getEast())) {
          putAt(kind, name, L.latLng(latitude, copy), room);
        }
      }
    };
    for (const { name, location } of this.features) {
      // The name of a place comes before that of its county, state and country.
      put("feature", summary(name.split(",", 1)[0] ?? "", 30), location.latitude / 1e7, location.longitude / 1e7, Infinity);
    }
    for (const { kind, name, latitude, longitude, radius } of this.areas) {
      put(kind, name, latitude, longitude, 3 * radius * degree);
    }
  }
}
