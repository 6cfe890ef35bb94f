/** The bus over a real Postgres. */
import { busConformance } from "./bus-conformance.ts";

busConformance("postgres");
