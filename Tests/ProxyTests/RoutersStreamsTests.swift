// A router that rewrites is not sent away under its streams.

import Testing

@testable import Proxy

@Suite("Routers: streams")
struct RoutersStreamsTests {
    @Test("a router that was replaced stays until its last stream is over, and takes new ones as long")
    func reload() throws {
        let desk = Desk.ready()
        desk.routers.streamBegan(r(1))
        desk.routers.streamBegan(r(1))
        #expect(desk.takesStreams(r(1)))
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(60_000)
        #expect(desk.take() == [spawn(2, generation: 2), .reloaded(generation: 2)])
        #expect(desk.takesStreams(r(1)) && desk.takesStreams(r(2)))
        desk.routers.streamsEnded(r(1), now: desk.now)
        desk.pass(60_000)
        #expect(desk.take() == [])
        desk.routers.streamsEnded(r(1), now: desk.now)
        #expect(desk.take() == [.shutdown(r(1), told: false)])
        #expect(!desk.takesStreams(r(1)))
        #expect(!desk.takesStreams(r(3)))
    }

    @Test("streams do not make the new router of a reload prove itself any later")
    func proving() {
        let desk = Desk.ready()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.routers.streamBegan(r(2))
        desk.pass(1000)
        #expect(
            desk.take() == [
                spawn(2, generation: 2), .reloaded(generation: 2), .shutdown(r(1), told: false),
            ])
    }

    @Test("a router that dies has no streams any more, and more ends than beginnings do no harm")
    func death() {
        let desk = Desk.ready()
        desk.routers.streamBegan(r(1))
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.routers.streamsEnded(r(1), count: 5, now: desk.now)
        #expect(!desk.takesStreams(r(1)))
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.routers.streamsEnded(r(2), now: desk.now)
        #expect(desk.takesStreams(r(2)))
    }

    @Test("when all is over, forgotten streams keep nobody")
    func drained() {
        let desk = Desk.ready()
        desk.routers.streamBegan(r(1))
        desk.routers.drain(now: desk.now)
        #expect(desk.take() == [.shutdown(r(1), told: false)])
    }
}

extension Desk {
    fileprivate func takesStreams(_ router: RouterID) -> Bool { routers.takesStreams(router) }
}
