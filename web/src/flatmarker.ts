// Markers that are cheap by the hundred.
import * as L from "leaflet";

/**
 * A marker without a compositing layer of its own. Leaflet positions markers by translate3d, which makes hundreds of layers that are
 * composited in each frame of a pan.
 */
export class FlatMarker extends L.Marker {
  protected _setPos(position: L.Point): void {
    const element = this.getElement() as (HTMLElement & { _leaflet_pos?: L.Point }) | undefined;
    if (element) {
      element._leaflet_pos = position; // Where DomUtil.getPosition looks.
      element.style.transform = `translate(${position.x}px, ${position.y}px)`;
    }
  }
}

/** An icon that is an element of a class: the style sheet has its size. */
export function iconOf(className: string, content?: HTMLElement): L.DivIcon {
  const icon = L.divIcon({ className, ...(content && { html: content }) });
  (icon.options as unknown as { iconSize: null }).iconSize = null; // Undefined would be Leaflet's default, 12 pixels.
  return icon;
}
