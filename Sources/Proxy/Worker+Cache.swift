// The worker's side towards the verdict cache: what is answered without a question, and what is kept for that.

import Config
import Linux
import Reactor
import RouterProtocol
import TLS

extension Worker {
    /// The kept verdict for what would be asked now about a connection.
    ///
    /// A connection in the middle of an exchange has a state of its own: what others were told does not fit it.
    func findKept(_ slot: UInt32) -> Verdict? {
        connections[slot].cacheEpoch = cache.epoch
        guard cache.count > 0 else { return nil }
        let facts = connections[slot].facts
        var hit: VerdictCache.Hit?
        connections[slot].phase.withQuestion { asked, data in
            guard asked.state == nil else { return }
            let subject = CacheSubject(
                listener: facts.listener, client: facts.client, hello: asked.hello?.hello, serverName: asked.serverName)
            hit = cache.find(subject, data: data, now: now)
        }
        guard let hit else { return nil }
        var rewritten: StreamDirections = []
        if door.isOpen, case .remote(let remote) = hit.verdict, !remote.rewrite.isEmpty {
            // Nothing passes by unrewritten: it waits for a router as a question does.
            guard let all = rewrites(nil) else { return nil }
            rewritten = all
        }
        withdraw(slot)
        connections[slot].cacheEntry = hit.entry
        connections[slot].facts.decider = nil
        connections[slot].facts.rewritten = rewritten
        return hit.verdict
    }

    /// Keeps a verdict that says it may be given to others, by what was asked about.
    func keep(_ verdict: Verdict, _ slot: UInt32) {
        guard verdict.isForOthers else { return }
        let facts = connections[slot].facts
        let epoch = connections[slot].cacheEpoch
        var entry: CacheEntryID?
        connections[slot].phase.withQuestion { asked, data in
            guard asked.state == nil else { return }
            let subject = CacheSubject(
                listener: facts.listener, client: facts.client, hello: asked.hello?.hello, serverName: asked.serverName)
            entry = cache.keep(verdict, subject, data: data, askedIn: epoch, now: now)
        }
        connections[slot].cacheEntry = entry
    }

    /// What a connection went by has failed: the next one is asked about.
    func dropKept(_ slot: UInt32) {
        guard let entry = connections[slot].cacheEntry else { return }
        connections[slot].cacheEntry = nil
        cache.drop(entry)
    }
}

extension Verdict {
    /// Whether the router allowed it to be kept.
    fileprivate var isForOthers: Bool {
        switch self {
        case .remote(let verdict): verdict.cache != nil
        case .close(let verdict): verdict.cache != nil
        case .file(let verdict): verdict.cache != nil
        case .undecided, .exchange: false
        }
    }
}
