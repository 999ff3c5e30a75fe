// The data of the base map: Natural Earth's countries (world-atlas) and the US Census Bureau's states and counties (us-atlas), reduced to
// land, borders and names. Only arithmetic whose result IEEE 754 fixes, so that every machine writes the same bytes.
import { readFileSync } from "node:fs";
import * as client from "topojson-client";
import * as simplifier from "topojson-simplify";

/** The areas that us-atlas has in more detail, by the numeric code of ISO 3166: the US and its territories. */
const american = new Set(["840", "630", "316", "580", "850", "016"]);

/** Square degrees of the triangles that simplification takes away, and the cells of the grid that points are put on. */
const detail = {
  world: { weight: 0.006, grid: 3e4 },
  states: { weight: 0.00002, grid: 1e5 },
  counties: { weight: 0.0002, grid: 6e4 },
};

/** The contents of the files, by name. */
export function files(modules) {
  const load = (path) => JSON.parse(readFileSync(new URL(path, modules)));
  const countries = load("world-atlas/countries-50m.json");
  const states = load("us-atlas/states-10m.json");
  const counties = load("us-atlas/counties-10m.json");
  const abroad = countries.objects.countries.geometries.filter(({ id }) => !american.has(id));
  const world = {
    land: merge(countries, abroad),
    borders: borders(countries, countries.objects.countries),
  };
  const nation = {
    land: merge(states, states.objects.states.geometries),
    borders: borders(states, states.objects.states),
  };
  return {
    world: JSON.stringify({
      world: reduce(countries, world, detail.world),
      states: reduce(states, nation, detail.states),
      names: {
        union: names(countries, countries.objects.countries.geometries.filter(({ id }) => id === "840")),
        country: names(countries, abroad),
        state: names(states, states.objects.states.geometries),
      },
    }),
    counties: JSON.stringify({
      counties: reduce(counties, { borders: borders(counties, counties.objects.counties, counties.objects.states) }, detail.counties),
      names: { county: names(counties, counties.objects.counties.geometries) },
    }),
  };
}

/** The union of polygons, as arcs of the topology. */
function merge(topology, geometries) {
  return client.mergeArcs(topology, geometries);
}

/** The lines between two areas, except those that are between two larger ones. */
function borders(topology, object, larger) {
  const except = new Set(larger ? client.meshArcs(topology, larger).arcs.flat().map(unsigned) : []);
  const { arcs } = client.meshArcs(topology, object, (a, b) => a !== b);
  return { type: "MultiLineString", arcs: arcs.flatMap((line) => split(line, except)) };
}

/** An arc that is used backwards has the complement of its index. */
function unsigned(arc) {
  return arc < 0 ? ~arc : arc;
}

/** The runs of a line without the arcs of a set. */
function split(line, except) {
  const runs = [[]];
  for (const arc of line) {
    if (except.has(unsigned(arc))) {
      runs.push([]);
    } else {
      runs.at(-1).push(arc);
    }
  }
  return runs.filter((run) => run.length > 0);
}

/** A topology of these objects alone, simplified. */
function reduce(topology, objects, { weight, grid }) {
  const weighed = simplifier.presimplify({ type: "Topology", arcs: topology.arcs, transform: topology.transform, objects });
  const simplified = simplifier.simplify(weighed, weight);
  const filtered = simplifier.filter(simplified, simplifier.filterWeight(simplified, weight));
  const { type, transform, arcs, objects: kept } = client.quantize({ ...filtered, bbox: undefined }, grid);
  return { type, transform, arcs, objects: kept };
}

/** [name, latitude, longitude, radius] of areas, by radius: a point within the largest polygon, far from its edges. */
function names(topology, geometries) {
  const found = geometries.flatMap((geometry) => {
    const { geometry: shape, properties } = client.feature(topology, geometry);
    const polygons = shape?.type === "MultiPolygon" ? shape.coordinates : shape?.type === "Polygon" ? [shape.coordinates] : [];
    const largest = polygons.map((rings) => rings.map(unwrapped)).toSorted((a, b) => area(b[0]) - area(a[0]))[0];
    return largest && properties.name ? [[properties.name, ...centre(largest)]] : [];
  });
  return found.toSorted((a, b) => b[3] - a[3] || (a[0] < b[0] ? -1 : 1));
}

/** A ring that goes on beyond the antimeridian, where the coordinates begin again at the other side. */
function unwrapped(ring) {
  let before = ring[0][0];
  return ring.map(([x, y]) => {
    before = x + 360 * Math.round((before - x) / 360);
    return [before, y];
  });
}

function area(ring) {
  let sum = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    sum += ring[j][0] * ring[i][1] - ring[i][0] * ring[j][1];
  }
  return Math.abs(sum / 2);
}

/** [latitude, longitude, distance to the nearest edge] of the farthest point of a grid, with three digits. */
function centre(rings) {
  const xs = rings[0].map(([x]) => x);
  const ys = rings[0].map(([, y]) => y);
  let [west, east, south, north] = [least(xs), -least(xs.map((x) => -x)), least(ys), -least(ys.map((y) => -y))];
  let best = [(south + north) / 2, (west + east) / 2, 0];
  for (let round = 0; round < 2; round++) {
    const [width, height] = [east - west, north - south];
    for (let i = 1; i < 14; i++) {
      for (let j = 1; j < 14; j++) {
        const [x, y] = [west + (width * i) / 14, south + (height * j) / 14];
        const distance = within(rings, x, y) ? edgeDistance(rings, x, y) : 0;
        if (distance > best[2]) {
          best = [y, x, distance];
        }
      }
    }
    [west, east, south, north] = [best[1] - width / 14, best[1] + width / 14, best[0] - height / 14, best[0] + height / 14];
  }
  return best.map((number) => Math.round(number * 1000) / 1000);
}

function least(numbers) {
  return numbers.reduce((a, b) => (a < b ? a : b));
}

function within(rings, x, y) {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [[ax, ay], [bx, by]] = [ring[i], ring[j]];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) {
        inside = !inside;
      }
    }
  }
  return inside;
}

function edgeDistance(rings, x, y) {
  let nearest = Infinity;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [[ax, ay], [bx, by]] = [ring[j], ring[i]];
      const [dx, dy] = [bx - ax, by - ay];
      const length = dx * dx + dy * dy;
      const t = length === 0 ? 0 : Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length));
      const [ex, ey] = [ax + t * dx - x, ay + t * dy - y];
      nearest = Math.min(nearest, ex * ex + ey * ey);
    }
  }
  return Math.sqrt(nearest);
}
