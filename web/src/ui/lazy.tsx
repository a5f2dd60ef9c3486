// Components whose code is fetched when they are first drawn.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [Component, set] = useState<ComponentType<P> | undefined>(() => loaded);
    useEffect(() => {
      if (loaded) return;
      load().then(
        (c) => {
          loaded = c;
          set(() => c);
        },
        () => {
          // The place stays empty; the next visit tries again.
        },
      );
    }, []);
    return Component ? <Component {...props} /> : null;
  };
}
