// What several tabs show, but seldom: fetched when first drawn.
import { lazy } from "../ui/lazy";

export const Empty = lazy(() => import("./Empty").then((m) => m.Empty));
export const Hint = lazy(() => import("./Hint").then((m) => m.Hint));
