"""The web service: `deeplabv3 serve MODEL`.

server       listens, starts and stops
connections  one connection: limits of time, bytes and number, below HTTP
guards       who may ask: host names, origins, the token; headers of every answer
app          the addresses, the documented interface, errors as JSON
uploads      a request's body within its limits
service      an image's way: admitted, decoded, segmented, drawn
decoders     processes that decode; decoding is what they run
batches      the queue before the network
outputs      a prediction as the bytes that were asked for
metrics      what is counted
page/        what a browser shows
"""
