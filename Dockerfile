# A node of a Ray cluster, for CPUs and NVIDIA GPUs: docker build -t cffma .
# The torch of the package index brings its CUDA libraries; for CPUs alone a smaller one
# can be chosen: --build-arg PIP_OPTIONS="--extra-index-url ADDRESS"
FROM python:3.12-slim
ARG PIP_OPTIONS=""
WORKDIR /opt/cffma
COPY . .
RUN pip install --no-cache-dir $PIP_OPTIONS -c constraints.txt ".[ray,video]"
# The head: ray start --head --block; others: ray start --address=HEAD:6379 --block
CMD ["ray", "start", "--head", "--block"]
