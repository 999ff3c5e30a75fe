// The names of countries, states and counties on the base map: text that the map's tiles do not cut.
import * as L from "leaflet";
import type { Label } from "./basemap";
import { FlatMarker } from "./flatmarker";
import { nearestCopy } from "./location";

/** Names in view. */
const maxLabels = 60;

/** The zoom levels at which each kind of name is shown. */
const zooms = { country: [2, 6], state: [4, 9], county: [8, 13] } as const;

/** Draws the names that have room in the view. */
export class Labels {
  private readonly layer = L.layerGroup();
  private labels: readonly Label[] = [];

  constructor(private readonly map: L.Map) {
    const pane = map.createPane("labels");
    pane.setAttribute("aria-hidden", "true");
    this.layer.addTo(map);
    map.on("moveend", () => this.draw());
  }

  set(labels: readonly Label[]): void {
    this.labels = labels;
    this.draw();
  }

  private draw(): void {
    this.layer.clearLayers();
    const zoom = this.map.getZoom();
    const bounds = this.map.getBounds();
    const meridian = bounds.getCenter().lng;
    const degree = (256 * 2 ** zoom) / 360; // pixels of a degree of longitude
    const taken: { x: number; y: number; width: number }[] = [];
    for (const { name, latitude, longitude, radius, kind } of this.labels) {
      const [from, to] = zooms[kind];
      const width = name.length * (kind === "county" ? 6 : 8);
      if (zoom < from || zoom > to || 3 * radius * degree < width) {
        continue;
      }
      const at = L.latLng(latitude, nearestCopy(longitude, meridian));
      if (!bounds.contains(at)) {
        continue;
      }
      const { x, y } = this.map.latLngToLayerPoint(at);
      if (taken.some((other) => Math.abs(other.x - x) < (other.width + width) / 2 + 6 && Math.abs(other.y - y) < 18)) {
        continue;
      }
      taken.push({ x, y, width });
      const text = document.createElement("span");
      text.textContent = name;
      const icon = L.divIcon({ className: `label ${kind}`, html: text, iconSize: undefined as never });
      this.layer.addLayer(new FlatMarker(at, { icon, interactive: false, keyboard: false, pane: "labels" }));
      if (taken.length >= maxLabels) {
        return;
      }
    }
  }
}
