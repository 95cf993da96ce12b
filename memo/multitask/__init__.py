"""Systems that learn several tasks at once: SoG, ASP-MTL, trimodal; their heads on real corpora."""
