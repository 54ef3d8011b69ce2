// The types of what the service answers, as far as this page reads them: see /docs.json.

/** @typedef {{code: string, message: string, hint: string}} ErrorDetail */

/**
 * @typedef {object} ScoredItem
 * @property {number} index
 * @property {string} id
 * @property {"ok" | "error"} status
 * @property {number | null} outlier_score
 * @property {number | null} outlier_probability
 * @property {number | null} mahalanobis_squared
 * @property {boolean | null} is_foreign
 * @property {string | null} reason
 * @property {{latent: string, shapley_odds: number}[] | null} [attributions]
 * @property {{id: string, index: number, distance: number}[] | null} [nearest]
 * @property {{latent: string, image: string}[] | null} [heat_maps]
 * @property {ErrorDetail | null} [error]
 */

/**
 * @typedef {object} ScoredContext
 * @property {string} source
 * @property {number} size
 * @property {string} estimator
 * @property {number | null} contamination
 * @property {"high" | "low"} reliability
 * @property {string[]} warnings
 */

/** @typedef {{context: ScoredContext, items: ScoredItem[]}} ScoreAnswer */

/**
 * @typedef {object} Context  what /fit answers as `context`; everything in it goes back with later calls
 * @property {string} bundle_id
 * @property {number} size
 * @property {number[]} location
 * @property {number[][]} covariance
 * @property {number} radius_squared
 */

/** @typedef {{id: string, changed: string[], exemplar?: string | null, image: string | null, mahalanobis_squared: {after: number, reencoded: number} | null}} Picture */
/** @typedef {{index: number, name: string, dead: boolean}} Latent */

/**
 * @typedef {object} Description
 * @property {string} bundle_id
 * @property {string} model
 * @property {{height: number, width: number, channels: number}} image
 * @property {Latent[]} latents
 * @property {string} provider
 * @property {{max_images: number, max_body_bytes: number, max_image_pixels: number}} limits
 * @property {{can_decode: boolean, has_saliency: boolean}} capabilities
 * @property {string} trained_on
 * @property {string} drawing
 * @property {string[]} remarks
 */

export {};
