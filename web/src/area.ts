// An area of the map, and the Rectangle that asks a server for it.
import { type Location, mercatorLimit, nearestCopy, toE7 } from "./location";

/**
 * An area in degrees. West is less than east, and both may be beyond 180 degrees, where the map shows further copies of
 * the world.
 */
export interface Area {
  readonly south: number;
  readonly north: number;
  readonly west: number;
  readonly east: number;
}

/** All of the Earth. */
export const everywhere: Area = { south: -90, north: 90, west: -180, east: 180 };

/** The longitudes of a Rectangle are int32. */
const longitudeLimit = 214.7483647;

/** An area that is larger by a share of its size on each side. */
export function padded(area: Area, share: number): Area {
  const height = (area.north - area.south) * share;
  const width = (area.east - area.west) * share;
  return { south: area.south - height, north: area.north + height, west: area.west - width, east: area.east + width };
}

/**
 * The smallest area that one Rectangle can ask for and that covers the given one. Where it reaches too far on both sides of
 * the antimeridian for a Rectangle, that is all around the Earth: a page holds one stream, not two.
 */
export function askable(area: Area): Area {
  // The map ends before the poles, and its edge stands for what is beyond.
  const south = area.south <= -mercatorLimit + 1e-6 ? -90 : area.south;
  const north = area.north >= mercatorLimit - 1e-6 ? 90 : area.north;
  const centre = (area.west + area.east) / 2;
  const shift = nearestCopy(centre, 0) - centre;
  const west = area.west + shift;
  const east = area.east + shift;
  if (east - west >= 360 || west < -longitudeLimit || east > longitudeLimit) {
    return { south, north, west: -180, east: 180 };
  }
  return { south, north, west, east };
}

/** The corners of a Rectangle for an area that {@link askable} returned. */
export function rectangleOf(area: Area): { lo: Location; hi: Location } {
  return {
    lo: { latitude: toE7(area.south), longitude: toE7(area.west) },
    hi: { latitude: toE7(area.north), longitude: toE7(area.east) },
  };
}

/** Whether an area covers another one, in any copy of the world. */
export function covers(outer: Area, inner: Area): boolean {
  if (inner.south < outer.south || inner.north > outer.north) {
    return false;
  }
  if (outer.east - outer.west >= 360) {
    return true;
  }
  const shift = shiftTo(outer, (inner.west + inner.east) / 2);
  return inner.west + shift >= outer.west && inner.east + shift <= outer.east;
}

/** Whether a location is in an area. */
export function includes(area: Area, location: Location): boolean {
  const latitude = location.latitude / 1e7;
  if (latitude < area.south || latitude > area.north) {
    return false;
  }
  const longitude = location.longitude / 1e7;
  const shifted = longitude + shiftTo(area, longitude);
  return shifted >= area.west && shifted <= area.east;
}

/** How much larger an area is than another one, in square degrees. */
export function sizeRatio(outer: Area, inner: Area): number {
  return ((outer.north - outer.south) * (outer.east - outer.west)) / ((inner.north - inner.south) * (inner.east - inner.west));
}

/** The full circles from a meridian to its copy that is nearest to the centre of an area. */
function shiftTo(area: Area, meridian: number): number {
  return nearestCopy(meridian, (area.west + area.east) / 2) - meridian;
}
